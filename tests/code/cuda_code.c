/* cuda_code.c - what the compiler made of the CUDA kernels: reads the machine code in object
 * files and holds it against rules. A kernel that asks for wgmma but was given something else
 * still computes the right numbers, so no other test would notice.
 *
 *   cuda_code [-v] OBJECT...
 *
 * Object files hold a cubin, an ELF file of machine 190, for each architecture (compiled with
 * --no-compress). An instruction has 16 bytes; the low 12 bits of the first word are
 * its opcode and the form of its operands. Opcodes were found by compiling pairs of kernels
 * that differ in one PTX instruction, for sm_80 and sm_90a of CUDA 13.0. HGMMA_R: with the M
 * operand in registers. */
#include <elf.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CUDA_MACHINE = 190, N_CODE = 4096, MAX_OP = 4 };

static const struct {
    const char *name;
    unsigned code;
} opcodes[] = {
    {"LDGSTS", 0xfae}, {"LDSM", 0x83b},    {"STSM", 0x844},      {"HMMA", 0x23c},
    {"HGMMA", 0x9f0},  {"HGMMA_R", 0xdf0}, {"UTMALDG", 0x5b4},   {"USETMAXREG", 0x9c8},
    {"LDL", 0x983},    {"STL", 0x387},     {"WARPGROUP", 0x9c5},
};
enum { N_OPCODE = sizeof opcodes / sizeof *opcodes };

/* Every kernel whose mangled name has `part`, on architectures from..to, has all of `needs`. */
static const struct rule {
    const char *part;
    int from, to;
    const char *needs[MAX_OP];
} rules[] = {
    {"sm90_shapeIL8pm_dtype2E", 90, 90, {"HGMMA", "UTMALDG", "LDGSTS"}},   /* BF16 */
    {"sm90_shapeIL8pm_dtype3E", 90, 90, {"HGMMA_R", "UTMALDG", "LDGSTS"}}, /* F8_E4M3 */
    {"sm90_shapeIL8pm_dtype4E", 90, 90, {"HGMMA_R", "UTMALDG", "LDGSTS"}}, /* MXFP4 */
    {"mma_kernelI", 80, 100, {"HMMA", "LDSM", "LDGSTS"}},
    {"attend_wgmma", 90, 90, {"HGMMA", "HGMMA_R", "LDGSTS"}},
    {"attend_mma", 80, 100, {"HMMA", "LDSM", "LDGSTS"}},
    {"wgmma_kernel", 90, 90, {"HGMMA"}},
};
enum { N_RULE = sizeof rules / sizeof *rules };

/* Kernels that may keep values in local memory: sines in double reduce large angles there. */
static const char *const local[] = {"rope_table_kernel"};

static bool used[N_RULE], verbose;
static int n_kernel, n_bad;

static unsigned code_of(const char *name)
{
    for (int i = 0; i < N_OPCODE; i++) {
        if (strcmp(opcodes[i].name, name) == 0) return opcodes[i].code;
    }
    fprintf(stderr, "cuda_code: no opcode %s\n", name);
    exit(2);
}

static void bad(const char *kernel, int sm, const char *what)
{
    printf("sm_%d %s: %s\n", sm, kernel, what);
    n_bad++;
}

static void check_kernel(const char *kernel, int sm, const unsigned *count)
{
    char text[64];
    n_kernel++;
    if (verbose) {
        printf("sm_%d %s:", sm, kernel);
        for (int i = 0; i < N_OPCODE; i++) {
            unsigned n = count[opcodes[i].code];
            if (n) printf(" %s %u", opcodes[i].name, n);
        }
        putchar('\n');
    }
    if ((count[code_of("LDL")] || count[code_of("STL")]) && !strstr(kernel, local[0])) {
        bad(kernel, sm, "keeps values in local memory");
    }
    /* WARPGROUP: fences and waits. Where the compiler cannot follow which registers a wgmma has
     * in use it puts both around each one, and says so among much else. */
    unsigned n_wgmma = count[code_of("HGMMA")] + count[code_of("HGMMA_R")];
    if (n_wgmma && 2 * count[code_of("WARPGROUP")] > 3 * n_wgmma) {
        bad(kernel, sm, "waits for each wgmma before the next");
    }
    for (int r = 0; r < N_RULE; r++) {
        if (!strstr(kernel, rules[r].part) || sm < rules[r].from || sm > rules[r].to) continue;
        used[r] = true;
        for (int i = 0; i < MAX_OP && rules[r].needs[i]; i++) {
            if (count[code_of(rules[r].needs[i])]) continue;
            snprintf(text, sizeof text, "found no %s", rules[r].needs[i]);
            bad(kernel, sm, text);
        }
    }
}

/* The text sections of the cubin at `at`, of which n bytes are left in the file. */
static void read_cubin(const unsigned char *at, size_t n)
{
    Elf64_Ehdr head;
    memcpy(&head, at, sizeof head);
    int sm = (int)(head.e_flags >> 8 & 0xffff ? head.e_flags >> 8 & 0xff : head.e_flags & 0xff);
    if (head.e_shoff + (uint64_t)head.e_shnum * sizeof(Elf64_Shdr) > n) return;
    const Elf64_Shdr *section = (const void *)(at + head.e_shoff);
    const char *names = (const char *)at + section[head.e_shstrndx].sh_offset;
    for (int i = 0; i < head.e_shnum; i++) {
        static unsigned count[N_CODE];
        const char *name = names + section[i].sh_name;
        if (strncmp(name, ".text.", 6) != 0) continue;
        memset(count, 0, sizeof count);
        for (uint64_t o = 0; o + 16 <= section[i].sh_size; o += 16) {
            uint64_t word;
            memcpy(&word, at + section[i].sh_offset + o, sizeof word);
            count[word & (N_CODE - 1)]++;
        }
        check_kernel(name + 6, sm, count);
    }
}

static void read_object(const char *path)
{
    FILE *f = fopen(path, "rb");
    unsigned char *byte;
    long n;
    if (!f || fseek(f, 0, SEEK_END) != 0 || (n = ftell(f)) < 0) {
        perror(path);
        exit(2);
    }
    rewind(f);
    byte = malloc((size_t)n);
    if (!byte || fread(byte, 1, (size_t)n, f) != (size_t)n) {
        perror(path);
        exit(2);
    }
    fclose(f);
    for (size_t i = 8; i + sizeof(Elf64_Ehdr) <= (size_t)n; i += 8) {
        const Elf64_Ehdr *head = (const void *)(byte + i);
        if (memcmp(head->e_ident, ELFMAG, SELFMAG) == 0 && head->e_machine == CUDA_MACHINE) {
            read_cubin(byte + i, (size_t)n - i);
        }
    }
    free(byte);
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "-v") == 0) {
            verbose = true;
        } else {
            read_object(argv[i]);
        }
    }
    for (int r = 0; r < N_RULE; r++) {
        if (!used[r]) bad(rules[r].part, rules[r].from, "no kernel of this name was found");
    }
    printf("%d kernels, %d of them break a rule or a rule has no kernel\n", n_kernel, n_bad);
    return n_kernel == 0 || n_bad != 0;
}
