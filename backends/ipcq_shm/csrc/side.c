#include "side.h"

#include "ending.h"

void side_totals(struct queue *queue, struct queue_total *put, struct queue_total *got)
{
    for (int tries = 0; tries < 100; tries++) {
        uint64_t before;
        uint64_t position;

        if (side_total(&queue->segment->get, got, &before) && side_total(&queue->segment->put, put, &position) &&
            word_load(&queue->segment->get.position) == before)
            break;
    }
    if (ending_dropped(queue))
        *got = *put;
}
