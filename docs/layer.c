/* layer.c - the expert layer alone, without a model, through polymath.h.
 *
 *     cc layer.c $(pkg-config --cflags --libs polymath) -o layer
 *     ./layer
 *
 * 64 experts of which every row visits the best 8, float32, on the CPU. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <polymath.h>

enum { ROWS = 32, EXPERTS = 64, TOP_K = 8, HIDDEN = 256, INNER = 128 };

static float *random_values(size_t n, float size)
{
    float *x = malloc(n * sizeof *x);
    for (size_t i = 0; x && i < n; i++) {
        x[i] = size * (2 * (float)rand() / (float)RAND_MAX - 1);
    }
    return x;
}

int main(void)
{
    const size_t matrix = (size_t)EXPERTS * INNER * HIDDEN;
    float *gate = random_values((size_t)EXPERTS * HIDDEN, 1),
          *w_gate = random_values(matrix, 0.1f);
    float *w_up = random_values(matrix, 0.1f), *w_down = random_values(matrix, 0.1f);
    float *x = random_values(ROWS * HIDDEN, 1), *y = random_values(ROWS * HIDDEN, 0);
    float alone[HIDDEN], weight[ROWS * TOP_K];
    int32_t id[ROWS * TOP_K];
    pm_layer_shape shape = {.n_expert = EXPERTS,
                            .top_k = TOP_K,
                            .hidden = HIDDEN,
                            .inner = INNER,
                            .weight_type = PM_F32,
                            .glu = PM_GLU_SILU,
                            .score = PM_SCORE_SOFTMAX,
                            .renorm = PM_RENORM_SUM};
    pm_layer_weights weights = {.w_gate = w_gate, .w_up = w_up, .w_down = w_down, .gate = gate};
    pm_layer_options options = {.device = "cpu", .max_row = ROWS};
    pm_layer_step step = {.y = y, .x = x, .n_row = ROWS};
    pm_layer *layer = NULL;
    int code = 1;
    if (gate && w_gate && w_up && w_down && x && y &&
        pm_layer_open(&layer, &shape, &weights, &options) == PM_OK &&
        pm_layer_workspace(&step.workspace_bytes, layer, ROWS) == PM_OK &&
        (step.workspace = malloc(step.workspace_bytes)) != NULL &&
        pm_layer_forward(layer, &step) == PM_OK &&
        pm_layer_routing(layer, id, weight) == PM_OK) {
        printf("row 0 visits expert");
        for (int k = 0; k < TOP_K; k++) {
            printf("%s %d (%.3f)", k ? "," : "", id[k], (double)weight[k]);
        }
        /* The last row alone: the same bits as among the others. */
        step.x = x + (ROWS - 1) * HIDDEN;
        step.y = alone;
        step.n_row = 1;
        code = pm_layer_forward(layer, &step) != PM_OK ||
               memcmp(alone, y + (ROWS - 1) * HIDDEN, sizeof alone) != 0;
        printf("\nrow %d alone has %s bits\n", ROWS - 1, code ? "other" : "the same");
    } else {
        fprintf(stderr, "layer: %s\n", pm_last_error());
    }
    pm_layer_close(layer);
    free(step.workspace);
    free(gate);
    free(w_gate);
    free(w_up);
    free(w_down);
    free(x);
    free(y);
    return code;
}
