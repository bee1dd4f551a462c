/* kernels_print.c - rows of polymath bench kernels beside the speed of light.
 *
 * The wall of a row is the time that its useful bytes take at the measured bandwidth or its
 * multiply-adds at the measured rate, whichever is longer; its share is wall / median. */
#include "bench/kernels.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/stats.h"
#include "moe/json.h"

static const struct kernel_op *op_of(const struct kernels_row *r)
{
    const struct kernel_op *op = kernel_ops;
    while (strcmp(op->name, r->op) != 0) {
        op++;
    }
    return op;
}

void kernels_walls(struct kernels_report *r, pm_dtype narrow)
{
    for (size_t i = 0; i < r->n; i++) {
        struct kernels_row *row = &r->row[i];
        bool wide =
            row->by_type ? row->type == PM_F32 || row->type == PM_F16 : narrow == PM_F32;
        double gbs = op_of(row)->memory == PEAK_COPY ? r->peaks.copy_gbs : r->peaks.read_gbs;
        double gflops = wide ? r->peaks.f32_gflops : r->peaks.bf16_gflops;
        double memory = row->bytes / gbs / 1e3, compute = row->flops / gflops / 1e3;
        row->wall_us = fmax(memory, compute);
        row->memory_bound = memory >= compute;
    }
}

static double gbs(const struct kernels_row *r)
{
    return r->bytes / r->time.median_us / 1e3;
}

static double gflops(const struct kernels_row *r)
{
    return r->flops / r->time.median_us / 1e3;
}

static const char *type_text(const struct kernels_row *r)
{
    return r->by_type ? dtype_name(r->type) : "-";
}

static void print_md(const struct kernels_report *r, const char *cpu)
{
    puts(
        "| shape | op | type | routing | T | us | GB/s | GFLOP/s | wall us | of wall | bound | "
        "cold |\n|---|---|---|---|---:|---:|---:|---:|---:|---:|---|---|");
    for (size_t i = 0; i < r->n; i++) {
        const struct kernels_row *w = &r->row[i];
        printf("| %s | %s | %s | %s | %lld | %.1f ± %.1f | %.2f | %.1f | %.1f | %.0f %% | %s | "
               "%s |\n",
               w->shape, w->op, type_text(w), w->by_routing ? w->routing : "-",
               (long long)w->n_row, w->time.median_us, w->time.deviation_us, gbs(w), gflops(w),
               w->wall_us, 100 * w->wall_us / w->time.median_us,
               w->memory_bound ? "memory" : "compute", w->cold ? "yes" : "no");
    }
    printf("\n%s, %s, commit %s; read %.1f GB/s, copy %.1f GB/s, f32 %.0f GFLOP/s, bf16 %.0f "
           "GFLOP/s\n",
           cpu, r->device, pm_commit(), r->peaks.read_gbs, r->peaks.copy_gbs,
           r->peaks.f32_gflops, r->peaks.bf16_gflops);
}

static void print_csv(const struct kernels_report *r, const char *cpu)
{
    puts("commit,cpu,device,shape,op,type,routing,rows,experts,top_k,active_experts,median_us,"
         "min_us,deviation_us,samples,turns,sets,cold,bytes,flops,gigabytes_per_second,"
         "gigaflops,"
         "wall_us,share_of_wall,bound,read_gigabytes_per_second,copy_gigabytes_per_second,"
         "f32_gigaflops,bf16_gigaflops");
    for (size_t i = 0; i < r->n; i++) {
        const struct kernels_row *w = &r->row[i];
        printf("%s,\"%s\",\"%s\",%s,%s,%s,%s,%lld,%d,%d,%.2f,%.3f,%.3f,%.3f,%d,%lld,%d,%d,%.0f,"
               "%.0f,%.4f,%.3f,%.3f,%.4f,%s,%.3f,%.3f,%.2f,%.2f\n",
               pm_commit(), cpu, r->device, w->shape, w->op, type_text(w),
               w->by_routing ? w->routing : "-", (long long)w->n_row, w->n_expert, w->top_k,
               w->n_active, w->time.median_us, w->time.min_us, w->time.deviation_us,
               w->n_sample, (long long)w->time.n_turn, w->n_set, w->cold, w->bytes, w->flops,
               gbs(w), gflops(w), w->wall_us, w->wall_us / w->time.median_us,
               w->memory_bound ? "memory" : "compute", r->peaks.read_gbs, r->peaks.copy_gbs,
               r->peaks.f32_gflops, r->peaks.bf16_gflops);
    }
}

static void put_text(struct json_out *o, const char *key, const char *text)
{
    json_put(o, "\"%s\": ", key);
    json_put_string(o, text, strlen(text));
    json_put(o, ", ");
}

static void put_row(struct json_out *o, const struct kernels_report *r,
                    const struct kernels_row *w, const char *cpu)
{
    json_put(o, "{");
    put_text(o, "commit", pm_commit());
    put_text(o, "cpu", cpu);
    put_text(o, "device", r->device);
    put_text(o, "shape", w->shape);
    put_text(o, "op", w->op);
    if (w->by_type) put_text(o, "type", dtype_name(w->type));
    if (w->by_routing) put_text(o, "routing", w->routing);
    json_put(o, "\"rows\": %lld, \"experts\": %d, \"top_k\": %d, \"active_experts\": %.2f, ",
             (long long)w->n_row, w->n_expert, w->top_k, w->n_active);
    json_put(o,
             "\"median_us\": %.3f, \"min_us\": %.3f, \"deviation_us\": %.3f, \"samples\": %d, "
             "\"turns\": %lld, \"sets\": %d, \"cold\": %s, ",
             w->time.median_us, w->time.min_us, w->time.deviation_us, w->n_sample,
             (long long)w->time.n_turn, w->n_set, w->cold ? "true" : "false");
    json_put(o,
             "\"bytes\": %.0f, \"flops\": %.0f, \"gigabytes_per_second\": %.4f, \"gigaflops\": "
             "%.3f, \"wall_us\": %.3f, \"share_of_wall\": %.4f, \"bound\": \"%s\", ",
             w->bytes, w->flops, gbs(w), gflops(w), w->wall_us, w->wall_us / w->time.median_us,
             w->memory_bound ? "memory" : "compute");
    json_put(o,
             "\"read_gigabytes_per_second\": %.3f, \"copy_gigabytes_per_second\": %.3f, "
             "\"f32_gigaflops\": %.2f, \"bf16_gigaflops\": %.2f}",
             r->peaks.read_gbs, r->peaks.copy_gbs, r->peaks.f32_gflops, r->peaks.bf16_gflops);
}

void kernels_print(const struct kernels_report *r, enum kernels_format format)
{
    bool lines = format == KERNELS_JSONL;
    struct json_out o = {0};
    char cpu[128];
    machine_name(cpu, sizeof cpu);
    if (format == KERNELS_MD) {
        print_md(r, cpu);
        return;
    }
    if (format == KERNELS_CSV) {
        print_csv(r, cpu);
        return;
    }
    for (size_t i = 0; i < r->n; i++) {
        json_put(&o, "%s", lines ? "" : i ? ",\n  " : "[\n  ");
        put_row(&o, r, &r->row[i], cpu);
        if (lines) json_put(&o, "\n");
    }
    if (!lines) json_put(&o, r->n ? "\n]\n" : "[]\n");
    fwrite(o.text, 1, o.n, stdout);
    free(o.text);
}
