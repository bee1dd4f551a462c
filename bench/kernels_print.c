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

static double ratio(const struct kernels_row *r)
{
    return r->own_us > 0 ? r->time.median_us / r->own_us : 1;
}

static void print_md(const struct kernels_report *r, const char *cpu)
{
    puts("| shape | op | by | type | routing | T | cache | us | p10 to p90 | GB/s | GFLOP/s | "
         "wall us | of wall | bound | x polymath |\n"
         "|---|---|---|---|---|---:|---|---:|---:|---:|---:|---:|---:|---|---:|");
    for (size_t i = 0; i < r->n; i++) {
        const struct kernels_row *w = &r->row[i];
        printf("| %s | %s | %s | %s | %s | %lld | %s | %.1f | %.1f to %.1f | %.2f | %.1f | "
               "%.1f | %.0f %% | %s | %.2f |\n",
               w->shape, w->op, w->by, type_text(w), w->by_routing ? w->routing : "-",
               (long long)w->n_row, w->cold ? "cold" : "hot", w->time.median_us, w->time.p10_us,
               w->time.p90_us, gbs(w), gflops(w), w->wall_us,
               100 * w->wall_us / w->time.median_us, w->memory_bound ? "memory" : "compute",
               ratio(w));
    }
    printf("\n%s, %s%s%s, commit %s; read %.1f GB/s, copy %.1f GB/s, f32 %.0f GFLOP/s, bf16 "
           "%.0f GFLOP/s\n",
           cpu, r->device, *r->facts.software ? ", " : "", r->facts.software, pm_commit(),
           r->peaks.read_gbs, r->peaks.copy_gbs, r->peaks.f32_gflops, r->peaks.bf16_gflops);
    if (r->facts.clock_mhz) {
        printf("SM clock %d of %d MHz, memory %d MHz, %d W, %d degrees C after the last case\n",
               r->facts.clock_mhz, r->facts.max_clock_mhz, r->facts.memory_mhz, r->facts.watts,
               r->facts.celsius);
    }
}

static void print_csv(const struct kernels_report *r, const char *cpu)
{
    puts("commit,cpu,device,software,shape,op,by,type,routing,rows,experts,top_k,"
         "active_experts,median_us,p10_us,p90_us,min_us,deviation_us,samples,turns,replayed,"
         "sets,cold,bytes,flops,gigabytes_per_second,gigaflops,wall_us,share_of_wall,bound,"
         "times_polymath,clock_mhz,read_gigabytes_per_second,copy_gigabytes_per_second,"
         "f32_gigaflops,bf16_gigaflops");
    for (size_t i = 0; i < r->n; i++) {
        const struct kernels_row *w = &r->row[i];
        const struct timing *t = &w->time;
        printf("%s,\"%s\",\"%s\",\"%s\",%s,%s,%s,%s,%s,%lld,%d,%d,%.2f,", pm_commit(), cpu,
               r->device, r->facts.software, w->shape, w->op, w->by, type_text(w),
               w->by_routing ? w->routing : "-", (long long)w->n_row, w->n_expert, w->top_k,
               w->n_active);
        printf("%.3f,%.3f,%.3f,%.3f,%.3f,%d,%lld,%d,%d,%d,%.0f,%.0f,", t->median_us, t->p10_us,
               t->p90_us, t->min_us, t->deviation_us, w->n_sample, (long long)t->n_turn,
               t->replayed, w->n_set, w->cold, w->bytes, w->flops);
        printf("%.4f,%.3f,%.3f,%.4f,%s,%.4f,%d,%.3f,%.3f,%.2f,%.2f\n", gbs(w), gflops(w),
               w->wall_us, w->wall_us / t->median_us, w->memory_bound ? "memory" : "compute",
               ratio(w), w->clock_mhz, r->peaks.read_gbs, r->peaks.copy_gbs,
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
    put_text(o, "software", r->facts.software);
    put_text(o, "shape", w->shape);
    put_text(o, "op", w->op);
    put_text(o, "by", w->by);
    if (w->by_type) put_text(o, "type", dtype_name(w->type));
    if (w->by_routing) put_text(o, "routing", w->routing);
    json_put(o, "\"rows\": %lld, \"experts\": %d, \"top_k\": %d, \"active_experts\": %.2f, ",
             (long long)w->n_row, w->n_expert, w->top_k, w->n_active);
    json_put(o,
             "\"median_us\": %.3f, \"p10_us\": %.3f, \"p90_us\": %.3f, \"min_us\": %.3f, "
             "\"deviation_us\": %.3f, \"samples\": %d, \"turns\": %lld, \"replayed\": %s, "
             "\"sets\": %d, \"cold\": %s, ",
             w->time.median_us, w->time.p10_us, w->time.p90_us, w->time.min_us,
             w->time.deviation_us, w->n_sample, (long long)w->time.n_turn,
             w->time.replayed ? "true" : "false", w->n_set, w->cold ? "true" : "false");
    json_put(o,
             "\"bytes\": %.0f, \"flops\": %.0f, \"gigabytes_per_second\": %.4f, \"gigaflops\": "
             "%.3f, \"wall_us\": %.3f, \"share_of_wall\": %.4f, \"bound\": \"%s\", ",
             w->bytes, w->flops, gbs(w), gflops(w), w->wall_us, w->wall_us / w->time.median_us,
             w->memory_bound ? "memory" : "compute");
    json_put(o, "\"times_polymath\": %.4f, \"clock_mhz\": %d, ", ratio(w), w->clock_mhz);
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
