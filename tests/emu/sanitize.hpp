/* sanitize.hpp - what the emulator's core tells the sanitizers. The core itself is compiled
 * without any; EMU_TSAN or EMU_ASAN choose which hooks are real. */
#ifndef TESTS_EMU_SANITIZE_HPP
#define TESTS_EMU_SANITIZE_HPP

#include <stddef.h>

#if defined(EMU_TSAN)
#include <sanitizer/tsan_interface.h>
extern "C" {
void __tsan_read_range(void *, unsigned long);
void __tsan_write_range(void *, unsigned long);
}
#elif defined(EMU_ASAN)
#include <sanitizer/asan_interface.h>
extern "C" {
void __sanitizer_start_switch_fiber(void **, const void *, size_t);
void __sanitizer_finish_switch_fiber(void *, const void **, size_t *);
}
#endif

namespace emu {
[[noreturn]] void die(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ThreadSanitizer: one context per CUDA thread; contexts learn of each other only through
 * tokens, addresses that one releases and another acquires. */
#if defined(EMU_TSAN)
enum { TSAN = 1, SANITIZED = 1 };
static inline void *tsan_new()
{
    return __tsan_create_fiber(0);
}
static inline void *tsan_current()
{
    return __tsan_get_current_fiber();
}
static inline void tsan_switch(void *f)
{
    __tsan_switch_to_fiber(f, __tsan_switch_to_fiber_no_sync);
}
static inline void tsan_acquire(void *token)
{
    __tsan_acquire(token);
}
static inline void tsan_release(void *token)
{
    __tsan_release(token);
}
static inline void tsan_read(const void *p, size_t n)
{
    __tsan_read_range((void *)p, n);
}
static inline void tsan_write(void *p, size_t n)
{
    __tsan_write_range(p, n);
}
#else
enum { TSAN = 0 };
#if defined(EMU_ASAN)
enum { SANITIZED = 1 };
#else
enum { SANITIZED = 0 };
#endif
static inline void *tsan_new()
{
    return nullptr;
}
static inline void *tsan_current()
{
    return nullptr;
}
static inline void tsan_switch(void *) {}
static inline void tsan_acquire(void *) {}
static inline void tsan_release(void *) {}
static inline void tsan_read(const void *, size_t) {}
static inline void tsan_write(void *, size_t) {}
#endif

/* Runs fn as the context f. */
template <class F> static inline void tsan_as(void *f, F fn)
{
    if (!TSAN) return fn();
    void *me = tsan_current();
    tsan_switch(f);
    fn();
    tsan_switch(me);
}

/* AddressSanitizer: stacks it must know of, and memory that nobody may touch. */
#if defined(EMU_ASAN)
extern __thread const void *main_stack;
extern __thread size_t main_size;
static inline void asan_poison(const void *p, size_t n)
{
    if (n) __asan_poison_memory_region(p, n);
}
static inline void asan_unpoison(const void *p, size_t n)
{
    if (n) __asan_unpoison_memory_region(p, n);
}
static inline void asan_check(const void *p, size_t n)
{
    void *bad = __asan_region_is_poisoned((void *)p, n);
    if (!bad) return;
    __asan_describe_address(bad);
    die("an instruction touches poisoned memory at %p (%zu bytes from %p)", bad, n, p);
}
static inline void asan_start(void **save, const void *bottom, size_t n, bool to_main)
{
    __sanitizer_start_switch_fiber(save, to_main ? main_stack : bottom,
                                   to_main ? main_size : n);
}
static inline void asan_finish(void *fake)
{
    const void *bottom;
    size_t n;
    __sanitizer_finish_switch_fiber(fake, &bottom, &n);
    if (main_stack) return;
    main_stack = bottom;
    main_size = n;
}
#else
static inline void asan_poison(const void *, size_t) {}
static inline void asan_unpoison(const void *, size_t) {}
static inline void asan_check(const void *, size_t) {}
static inline void asan_start(void **, const void *, size_t, bool) {}
static inline void asan_finish(void *) {}
#endif
} // namespace emu

#endif
