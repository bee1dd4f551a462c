/* replay_main.c - runs a fuzz target over files, as a test without a fuzzer.
 *
 * Each argument is a file or a folder of files. What a fuzzer once found stays found: its input
 * lies in the corpus, and this program runs it in every build, under its sanitizers. */
#define _POSIX_C_SOURCE 200809L
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { SKIP = 77 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* Runs one file; 1 when it was run. The copy is exact, so that a sanitizer sees reads past it.
 */
static int replay_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    uint8_t *data = NULL;
    long n = -1;
    int done = 0;
    if (file && fseek(file, 0, SEEK_END) == 0) n = ftell(file);
    if (n >= 0) data = malloc(n > 0 ? (size_t)n : 1);
    if (data) rewind(file);
    if (data && fread(data, 1, (size_t)n, file) == (size_t)n) {
        LLVMFuzzerTestOneInput(data, (size_t)n);
        done = 1;
    } else {
        fprintf(stderr, "%s: cannot be read\n", path);
    }
    free(data);
    if (file) fclose(file);
    return done;
}

/* Files run under path, which may be a folder; what cannot be read counts into *n_failed. */
static int replay(const char *path, int *n_failed)
{
    struct dirent *entry;
    DIR *folder = opendir(path);
    int n = 0;
    if (!folder) {
        n = replay_file(path);
        *n_failed += !n;
        return n;
    }
    while ((entry = readdir(folder)) != NULL) {
        char child[4096];
        if (entry->d_name[0] == '.') continue;
        snprintf(child, sizeof child, "%s/%s", path, entry->d_name);
        n += replay(child, n_failed);
    }
    closedir(folder);
    return n;
}

int main(int n_argument, char **argument)
{
    int n = 0, n_failed = 0;
    for (int i = 1; i < n_argument; i++) {
        struct stat info;
        if (stat(argument[i], &info) == 0) n += replay(argument[i], &n_failed);
    }
    printf("%d files\n", n);
    if (n_failed > 0) return EXIT_FAILURE;
    return n > 0 ? EXIT_SUCCESS : SKIP;
}
