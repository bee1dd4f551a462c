/* normal_form.h - the four Unicode normal forms, as the reference's tables have them. */
#ifndef RUNTIME_NORMAL_FORM_H
#define RUNTIME_NORMAL_FORM_H

#include "unicode.h"

enum normal_form { NORMAL_C, NORMAL_D, NORMAL_KC, NORMAL_KD };

/* Appends the normal form of n bytes of well-formed text to out. Linear in n. */
pm_status normal_form_put(struct text *out, enum normal_form form, const char *text, size_t n);

#endif
