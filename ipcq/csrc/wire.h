/*
 * The heads of MessagePack, without Python. A head is a byte that names the kind of a value, followed by its number or
 * length.
 *
 * The reader must be safe in memory that a hostile process changes during the call. It loads every byte of a head once,
 * and computes with the copy. A compiler may load plain memory a second time, for example to index a table with a value
 * that it has just compared; `wire_once` prevents that. Lengths are compared with the bytes that are left, and are not
 * read again.
 *
 * An array of n elements needs at least n bytes. `wire_promise` subtracts them from the reader's end, and `wire_redeem`
 * gives one back before each element is read. So the lengths of all arrays of a message, nested ones included, never
 * add up to more than its bytes, and memory that is allocated by these lengths stays in proportion to the message.
 */
#ifndef IPCQ_WIRE_H
#define IPCQ_WIRE_H

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* The longest head, in bytes. */
#define WIRE_HEAD_BYTES 9

/* The greatest length of a str, bin, array or map. */
#define WIRE_LONGEST UINT32_MAX

/* Writing: each function writes a head of at most WIRE_HEAD_BYTES, and returns where it ends. */

static inline unsigned char *wire_write_8(unsigned char *to, unsigned char lead, uint8_t value)
{
    to[0] = lead;
    to[1] = value;
    return to + 2;
}

static inline unsigned char *wire_write_16(unsigned char *to, unsigned char lead, uint16_t value)
{
    value = htobe16(value);
    to[0] = lead;
    memcpy(to + 1, &value, sizeof value);
    return to + 1 + sizeof value;
}

static inline unsigned char *wire_write_32(unsigned char *to, unsigned char lead, uint32_t value)
{
    value = htobe32(value);
    to[0] = lead;
    memcpy(to + 1, &value, sizeof value);
    return to + 1 + sizeof value;
}

static inline unsigned char *wire_write_64(unsigned char *to, unsigned char lead, uint64_t value)
{
    value = htobe64(value);
    to[0] = lead;
    memcpy(to + 1, &value, sizeof value);
    return to + 1 + sizeof value;
}

static inline unsigned char *wire_write_nil(unsigned char *to)
{
    *to = 0xc0;
    return to + 1;
}

static inline unsigned char *wire_write_bool(unsigned char *to, bool value)
{
    *to = value ? 0xc3 : 0xc2;
    return to + 1;
}

static inline unsigned char *wire_write_unsigned(unsigned char *to, uint64_t value)
{
    if (value < 0x80) {
        *to = (unsigned char)value;
        return to + 1;
    }
    if (value <= UINT8_MAX)
        return wire_write_8(to, 0xcc, (uint8_t)value);
    if (value <= UINT16_MAX)
        return wire_write_16(to, 0xcd, (uint16_t)value);
    if (value <= UINT32_MAX)
        return wire_write_32(to, 0xce, (uint32_t)value);
    return wire_write_64(to, 0xcf, value);
}

static inline unsigned char *wire_write_signed(unsigned char *to, int64_t value)
{
    if (value >= 0)
        return wire_write_unsigned(to, (uint64_t)value);
    if (value >= -32) {
        *to = (unsigned char)value;
        return to + 1;
    }
    if (value >= INT8_MIN)
        return wire_write_8(to, 0xd0, (uint8_t)value);
    if (value >= INT16_MIN)
        return wire_write_16(to, 0xd1, (uint16_t)value);
    if (value >= INT32_MIN)
        return wire_write_32(to, 0xd2, (uint32_t)value);
    return wire_write_64(to, 0xd3, (uint64_t)value);
}

static inline unsigned char *wire_write_double(unsigned char *to, double value)
{
    uint64_t bits;

    _Static_assert(sizeof bits == sizeof value, "a double is one of IEEE 754");
    memcpy(&bits, &value, sizeof bits);
    return wire_write_64(to, 0xcb, bits);
}

static inline unsigned char *wire_write_str(unsigned char *to, uint32_t bytes)
{
    if (bytes < 32) {
        *to = (unsigned char)(0xa0 | bytes);
        return to + 1;
    }
    if (bytes <= UINT8_MAX)
        return wire_write_8(to, 0xd9, (uint8_t)bytes);
    if (bytes <= UINT16_MAX)
        return wire_write_16(to, 0xda, (uint16_t)bytes);
    return wire_write_32(to, 0xdb, bytes);
}

static inline unsigned char *wire_write_bin(unsigned char *to, uint32_t bytes)
{
    if (bytes <= UINT8_MAX)
        return wire_write_8(to, 0xc4, (uint8_t)bytes);
    if (bytes <= UINT16_MAX)
        return wire_write_16(to, 0xc5, (uint16_t)bytes);
    return wire_write_32(to, 0xc6, bytes);
}

static inline unsigned char *wire_write_array(unsigned char *to, uint32_t elements)
{
    if (elements < 16) {
        *to = (unsigned char)(0x90 | elements);
        return to + 1;
    }
    if (elements <= UINT16_MAX)
        return wire_write_16(to, 0xdc, (uint16_t)elements);
    return wire_write_32(to, 0xdd, elements);
}

static inline unsigned char *wire_write_map(unsigned char *to, uint32_t pairs)
{
    if (pairs < 16) {
        *to = (unsigned char)(0x80 | pairs);
        return to + 1;
    }
    if (pairs <= UINT16_MAX)
        return wire_write_16(to, 0xde, (uint16_t)pairs);
    return wire_write_32(to, 0xdf, pairs);
}

/* Reading */

struct wire_reader {
    const unsigned char *next;
    const unsigned char *end; /* without the promised bytes */
};

enum wire_kind {
    WIRE_BAD, /* not a head, or one that is cut off */
    WIRE_NIL,
    WIRE_FALSE,
    WIRE_TRUE,
    WIRE_UNSIGNED,
    WIRE_SIGNED,
    WIRE_FLOAT,
    WIRE_DOUBLE,
    WIRE_STR,
    WIRE_BIN,
    WIRE_ARRAY,
    WIRE_MAP,
    WIRE_EXT,
};

struct wire_head {
    enum wire_kind kind;
    uint64_t number; /* an integer in two's complement, the bits of a float, or a number of bytes, elements or pairs */
};

/* Returns a number that was loaded from shared memory, so that the compiler cannot load it again. */
static inline uint64_t wire_once(uint64_t number)
{
    __asm__ volatile("" : "+r"(number));
    return number;
}

/* The same for a copy of memory: the compiler must not read the original instead. */
static inline void wire_copied(const void *copy)
{
    __asm__ volatile("" : : "r"(copy) : "memory");
}

static inline uint64_t wire_load_16(const unsigned char *from)
{
    uint16_t value;

    memcpy(&value, from, sizeof value);
    return be16toh((uint16_t)wire_once(value));
}

static inline uint64_t wire_load_32(const unsigned char *from)
{
    uint32_t value;

    memcpy(&value, from, sizeof value);
    return be32toh((uint32_t)wire_once(value));
}

static inline uint64_t wire_load_64(const unsigned char *from)
{
    uint64_t value;

    memcpy(&value, from, sizeof value);
    return be64toh(wire_once(value));
}

static inline size_t wire_left(const struct wire_reader *from)
{
    return (size_t)(from->end - from->next);
}

/* Returns where the next bytes begin, and moves behind them; NULL if fewer are left. */
static inline const unsigned char *wire_take(struct wire_reader *from, uint64_t bytes)
{
    const unsigned char *taken = from->next;

    if (bytes > wire_left(from))
        return NULL;
    from->next += bytes;
    return taken;
}

/* Reserves bytes for elements that will be read; false if fewer are left. */
static inline bool wire_promise(struct wire_reader *from, uint64_t bytes)
{
    if (bytes > wire_left(from))
        return false;
    from->end -= bytes;
    return true;
}

/* Call it before each element for which a byte was promised. */
static inline void wire_redeem(struct wire_reader *from)
{
    from->end++;
}

/* Reads the rest of a head whose first byte is 0xc0 to 0xdf. Not inlined, because that would slow down the short
 * heads. */
static __attribute__((noinline)) struct wire_head wire_read_long(struct wire_reader *from, unsigned lead)
{
    /* The kind of each, and the size of its number in bytes. The rest of an ext is not read. */
    static const struct {
        unsigned char kind;
        unsigned char bytes;
    } leads[32] = {
        {WIRE_NIL, 0},      {WIRE_BAD, 0},      {WIRE_FALSE, 0},    {WIRE_TRUE, 0},     /* c0 */
        {WIRE_BIN, 1},      {WIRE_BIN, 2},      {WIRE_BIN, 4},      {WIRE_EXT, 0},      /* c4 */
        {WIRE_EXT, 0},      {WIRE_EXT, 0},      {WIRE_FLOAT, 4},    {WIRE_DOUBLE, 8},   /* c8 */
        {WIRE_UNSIGNED, 1}, {WIRE_UNSIGNED, 2}, {WIRE_UNSIGNED, 4}, {WIRE_UNSIGNED, 8}, /* cc */
        {WIRE_SIGNED, 1},   {WIRE_SIGNED, 2},   {WIRE_SIGNED, 4},   {WIRE_SIGNED, 8},   /* d0 */
        {WIRE_EXT, 0},      {WIRE_EXT, 0},      {WIRE_EXT, 0},      {WIRE_EXT, 0},      /* d4 */
        {WIRE_EXT, 0},      {WIRE_STR, 1},      {WIRE_STR, 2},      {WIRE_STR, 4},      /* d8 */
        {WIRE_ARRAY, 2},    {WIRE_ARRAY, 4},    {WIRE_MAP, 2},      {WIRE_MAP, 4},      /* dc */
    };
    struct wire_head head = {.kind = leads[lead - 0xc0].kind};
    unsigned bytes = leads[lead - 0xc0].bytes;
    const unsigned char *number = wire_take(from, bytes);
    bool is_signed = head.kind == WIRE_SIGNED;

    if (number == NULL)
        return (struct wire_head){.kind = WIRE_BAD};
    switch (bytes) {
    case 1:
        head.number = wire_once(*number);
        head.number = is_signed ? (uint64_t)(int8_t)head.number : head.number;
        break;
    case 2:
        head.number = wire_load_16(number);
        head.number = is_signed ? (uint64_t)(int16_t)head.number : head.number;
        break;
    case 4:
        head.number = wire_load_32(number);
        head.number = is_signed ? (uint64_t)(int32_t)head.number : head.number;
        break;
    case 8:
        head.number = wire_load_64(number);
        break;
    default:
        break;
    }
    return head;
}

static inline __attribute__((always_inline)) struct wire_head wire_read(struct wire_reader *from)
{
    unsigned lead;

    if (wire_left(from) == 0)
        return (struct wire_head){.kind = WIRE_BAD};
    lead = (unsigned)wire_once(*from->next++);
    if (lead < 0x80)
        return (struct wire_head){WIRE_UNSIGNED, lead};
    if (lead < 0x90)
        return (struct wire_head){WIRE_MAP, lead & 0x0f};
    if (lead < 0xa0)
        return (struct wire_head){WIRE_ARRAY, lead & 0x0f};
    if (lead < 0xc0)
        return (struct wire_head){WIRE_STR, lead & 0x1f};
    if (lead < 0xe0)
        return wire_read_long(from, lead);
    return (struct wire_head){WIRE_SIGNED, (uint64_t)(int8_t)lead};
}

#endif
