/* recorded.c - steps that a device records once and replays. The first step of a size runs as
 * it is, so that everything a backend prepares on first use is there when the second records.
 */
#include "recorded.h"

#include <string.h>

static pm_status record(struct recorded *r, int n_row, recorded_step *step, void *arg)
{
    void *graph = NULL;
    pm_status status, ended;
    TRY(r->k->record_begin(r->d));
    status = step(arg);
    ended = r->k->record_end(r->d, &graph);
    if (status == PM_OK) status = ended;
    if (status == PM_OK) {
        r->graph[n_row] = graph;
    } else if (graph) {
        r->k->record_free(r->d, graph);
    }
    return status;
}

pm_status recorded_run(struct recorded *r, int n_row, recorded_step *step, void *arg)
{
    if (!r->k->record_begin || n_row < 1 || n_row > RECORDED_ROWS) return step(arg);
    if (!r->seen[n_row]) {
        r->seen[n_row] = true;
        return step(arg);
    }
    if (!r->graph[n_row]) TRY(record(r, n_row, step, arg));
    return r->k->replay(r->d, r->graph[n_row]);
}

void recorded_close(struct recorded *r)
{
    for (int i = 0; i <= RECORDED_ROWS; i++) {
        if (r->graph[i]) r->k->record_free(r->d, r->graph[i]);
    }
    memset(r, 0, sizeof *r);
}
