/* openai_fields.h - the table of request fields, for openai_parse. */
#ifndef RUNTIME_OPENAI_FIELDS_H
#define RUNTIME_OPENAI_FIELDS_H

#include "openai.h"

/* Reads the members of r->doc into r by the table. */
pm_status openai_read_fields(struct openai_request *r);

#endif
