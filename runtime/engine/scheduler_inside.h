/* scheduler_inside.h - what the scheduler's files share. */
#ifndef RUNTIME_SCHEDULER_INSIDE_H
#define RUNTIME_SCHEDULER_INSIDE_H

#include "runtime/engine/scheduler.h"

enum { BLOCK = 16 };

/* Gives all blocks back; nothing is computed of r any more. */
void schedule_drop_blocks(struct scheduler *s, struct schedule_request *r);
/* Takes blocks until r holds n; false, and none is taken: there are too few. */
bool schedule_take_blocks(struct scheduler *s, struct schedule_request *r, int32_t n);

/* How many blocks of r may come from the cache: its last token is always computed. */
int32_t schedule_usable_blocks(const struct scheduler *s, const struct schedule_request *r);
/* Follows the chain over blocks that are known to the cache; those that r holds in their place
 * are given back. Returns how many there were. */
int32_t schedule_use_prefix(struct scheduler *s, struct schedule_request *r);
/* Found tokens are told of a request's first run only. */
void schedule_count_found(struct scheduler *s, struct schedule_request *r, int32_t n_block);
/* Makes the blocks known that end at or before n_past. */
void schedule_publish(struct scheduler *s, struct schedule_request *r);

#endif
