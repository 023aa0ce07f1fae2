#include "chain.h"

bool chain_copy_reason(const struct cells *cells, uint32_t cell, size_t size, unsigned char *out,
                       const unsigned char *in, size_t count)
{
    size_t hops = size < cells->first ? 0 : 1 + (size - cells->first) / CELL_SIZE;
    size_t at = size < cells->first ? CELL_SIZE - cells->first + size : (size - cells->first) % CELL_SIZE;
    /* The size may be an attacker's. */
    uint64_t here = hops < cells->count ? chain_last(cells, cell, hops + 1) : cells->count;

    for (size_t done = 0; done < count; done++, at++) {
        if (at == CELL_SIZE) {
            at = 0;
            here = here < cells->count ? get32(&cells->next[here]) : cells->count;
        }
        if (here >= cells->count)
            return false;
        if (out != NULL)
            out[done] = cells->cell[here].as.more[at];
        else
            cells->cell[here].as.more[at] = in[done];
    }
    return true;
}
