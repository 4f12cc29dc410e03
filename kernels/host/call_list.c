/* Carries out a list of array calls without Python: NumPy's own inner loops, one after the other.
 *
 * A call of NumPy from Python costs about half a microsecond, whatever it computes, and takes and
 * lets go of Python's lock: a thread that wants to go on after a short call waits for the other
 * threads' calls. Here the loop that NumPy would choose, its operands and its axes are known
 * beforehand; what is left for the time of the run is to call it.
 *
 * A call is a few 64-bit words, one call right behind the other:
 *
 *     loop        address of the inner loop, or 0 for a copy
 *     context     its first argument; unused by a copy
 *     auxiliary   its last argument; bytes of an element of a copy; what to do with an event
 *     counts      operands, outer axes, dimensions, inner strides: one byte each, lowest first
 *     staged      by operand, one byte each: bytes of an element if its rows are staged, or 0
 *     data        address of the first element of each operand
 *     dimensions  length of the inner axis; behind it the core dimensions of a matrix product
 *     strides     of the inner axis by operand; behind them those of the core dimensions
 *     shape       extent of each outer axis, outermost first
 *     steps       for each outer axis the stride by operand
 *
 * Strides are in bytes. The operands of a copy are its target, its source and, where
 * there is one, a mask.
 *
 * Streams that are threads meet at events: a call without loop and operands records one or waits for
 * one, whose address is its only dimension. An event is recorded when it holds the number of the run.
 *
 * An inner loop takes some ten nanoseconds to begin. Where rows are short and only some operands keep
 * the last outer axis from being one with the inner one (a row added to every row, a column to every
 * column), these are staged: copied, a few rows at a time, into a buffer in which the axes are one.
 */
#define _GNU_SOURCE /* syscall */
#include <stdint.h>
#include <string.h>
#include <time.h>
#ifdef __linux__
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

/* The same numbers stand in encode.py and axes.py. */
enum { MAX_OPERANDS = 8, MAX_AXES = 32, MAX_STAGED = 3 };
enum { STAGE = 512 }; /* elements of a buffer */

typedef int (*inner_loop)(void *context, char *const *data, const int64_t *dimensions,
                          const int64_t *strides, void *auxiliary);

#define STRIDED(TYPE)                                                        \
    for (int64_t i = 0; i < n; i++, to += to_stride, from += from_stride)    \
        *(TYPE *)to = *(const TYPE *)from;                                   \
    break

#define REPEATED(TYPE)                                                       \
    do {                                                                     \
        const TYPE value = *(const TYPE *)from;                              \
        for (int64_t i = 0; i < n; i++) ((TYPE *)to)[i] = value;             \
    } while (0);                                                             \
    break

static void copy(char *to, const char *from, int64_t n, int64_t to_stride, int64_t from_stride,
                 int64_t item)
{
    if (to_stride == item && from_stride == item) {
        memcpy(to, from, (size_t)(n * item));
        return;
    }
    if (to_stride == item && from_stride == 0) {
        switch (item) {
        case 1: REPEATED(uint8_t);
        case 2: REPEATED(uint16_t);
        case 4: REPEATED(uint32_t);
        default: REPEATED(uint64_t);
        }
        return;
    }
    switch (item) {
    case 1: STRIDED(uint8_t);
    case 2: STRIDED(uint16_t);
    case 4: STRIDED(uint32_t);
    default: STRIDED(uint64_t);
    }
}

#define CHOSEN(TYPE)                                                                          \
    for (int64_t i = 0; i < n; i++, to += strides[0], from += strides[1], mask += strides[2]) \
        if (*mask) *(TYPE *)to = *(const TYPE *)from;                                         \
    break

/* Copy the elements of which the mask is true. */
static void copy_where(char *to, const char *from, const char *mask, int64_t n,
                       const int64_t *strides, int64_t item)
{
    switch (item) {
    case 1: CHOSEN(uint8_t);
    case 2: CHOSEN(uint16_t);
    case 4: CHOSEN(uint32_t);
    default: CHOSEN(uint64_t);
    }
}

/* A call, taken apart. */
typedef struct {
    inner_loop loop;
    void *context;
    int64_t auxiliary;
    int n_operands, n_axes;
    uint64_t staged;
    const int64_t *data, *dimensions, *strides, *shape, *steps, *end;
} call;

static call read_call(const int64_t *word)
{
    call c;
    c.loop = (inner_loop)(intptr_t)word[0];
    c.context = (void *)(intptr_t)word[1];
    c.auxiliary = word[2];
    c.n_operands = (int)(word[3] & 255);
    c.n_axes = (int)(word[3] >> 8 & 255);
    c.staged = (uint64_t)word[4];
    c.data = word + 5;
    c.dimensions = c.data + c.n_operands;
    c.strides = c.dimensions + (word[3] >> 16 & 255);
    c.shape = c.strides + (word[3] >> 24 & 255);
    c.steps = c.shape + c.n_axes;
    c.end = c.steps + c.n_axes * c.n_operands;
    return c;
}

/* Carry out the inner axis alone. */
static void run_inner(const call *c, char *const *at)
{
    char *given[MAX_OPERANDS]; /* loops may count in what they are given */
    if (!c->loop) {
        const int64_t n = c->dimensions[0];
        if (c->n_operands == 2)
            copy(at[0], at[1], n, c->strides[0], c->strides[1], c->auxiliary);
        else
            copy_where(at[0], at[1], at[2], n, c->strides, c->auxiliary);
        return;
    }
    for (int i = 0; i < c->n_operands; i++) given[i] = at[i];
    c->loop(c->context, given, c->dimensions, c->strides, (void *)(intptr_t)c->auxiliary);
}

/* Carry out the last outer axis and the inner one, with short rows of some operands staged. */
static void run_rows(const call *c, char *const *at)
{
    uint64_t buffers[MAX_STAGED][STAGE];
    const int64_t length = c->dimensions[0], rows = c->shape[c->n_axes - 1];
    const int64_t *const steps = c->steps + (c->n_axes - 1) * c->n_operands;
    const int64_t most = STAGE / length;

    for (int64_t first = 0; first < rows; first += most) {
        const int64_t n = rows - first < most ? rows - first : most, elements = n * length;
        char *given[MAX_OPERANDS];
        int64_t strides[MAX_OPERANDS];
        for (int i = 0, next = 0; i < c->n_operands; i++) {
            const int64_t item = (int64_t)(c->staged >> 8 * i & 255);
            char *const from = at[i] + first * steps[i];
            given[i] = from;
            strides[i] = c->strides[i];
            if (!item) continue;
            given[i] = (char *)buffers[next++];
            strides[i] = item;
            if (first > 0 && steps[i] == 0) continue; /* the same rows as before */
            for (int64_t row = 0; row < n; row++)
                copy(given[i] + row * length * item, from + row * steps[i], length, item,
                     c->strides[i], item);
        }
        c->loop(c->context, given, &elements, strides, (void *)(intptr_t)c->auxiliary);
    }
}

static void run_call(const call *c)
{
    const int n_axes = c->n_axes - (c->staged != 0);
    char *at[MAX_OPERANDS];
    int64_t index[MAX_AXES];

    for (int i = 0; i < c->n_operands; i++) at[i] = (char *)(intptr_t)c->data[i];
    for (int axis = 0; axis < n_axes; axis++) index[axis] = 0;
    for (int axis = 0; axis >= 0;) {
        if (c->staged)
            run_rows(c, at);
        else
            run_inner(c, at);
        for (axis = n_axes - 1; axis >= 0; axis--) { /* on to the next place */
            const int64_t *const step = c->steps + axis * c->n_operands;
            if (++index[axis] < c->shape[axis]) {
                for (int i = 0; i < c->n_operands; i++) at[i] += step[i];
                break;
            }
            index[axis] = 0;
            for (int i = 0; i < c->n_operands; i++) at[i] -= step[i] * (c->shape[axis] - 1);
        }
    }
}

/* The same numbers stand in encode.py, library.py and events.py, the struct in events.py. */
enum { RECORD = 1, WAIT = 2 };
enum { DONE = 0, LEFT = 1, STUCK = 2, LOOK = 3 };
enum { LEAVE_AT_WAIT = 1, LEAVE_NOW = 2 };
typedef struct {
    int32_t run;      /* number of the run under way */
    int32_t stop;     /* 0, or when to leave the list */
    int32_t sleepers; /* threads that sleep until an event is recorded */
    int32_t unused;
    int64_t spin_ns;  /* how long a thread watches an event before it sleeps */
    int64_t limit_ns; /* how long a thread waits for an event at most */
} run_state;

typedef struct { /* of one thread; the struct stands in library.py as well */
    int64_t progress;     /* address of the call under way */
    int64_t since;        /* when the wait under way began, if it is taken up again; or 0 */
    const int64_t *marks; /* addresses of calls, in order, at which to note the time, 0 at the end */
    int64_t *stamps;      /* where to: nanoseconds on the clock, and on that of the thread */
    int64_t thread_clock; /* whether the latter is asked for: it takes a call of the system */
} lane_state;

#define SLICE_NS 10000000 /* a sleeper looks around so often, lest it miss that it should leave */
#define LOOK_NS 100000000 /* and has Python look at signals so often */

static int64_t clock_ns(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int64_t now_ns(void) { return clock_ns(CLOCK_MONOTONIC); }

static void stamp(lane_state *lane, const int64_t *word)
{
    if (*lane->marks != (int64_t)(intptr_t)word) return;
    const int64_t wall = now_ns();
    const int64_t own = lane->thread_clock ? clock_ns(CLOCK_THREAD_CPUTIME_ID) : 0;
    /* An item without calls begins where the next one does. */
    for (; *lane->marks == (int64_t)(intptr_t)word; lane->marks++) {
        *lane->stamps++ = wall;
        *lane->stamps++ = own;
    }
}

static void breathe(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Sleep until the event is recorded, though not longer than a slice. */
static void sleep_on(const int32_t *event, int32_t seen)
{
#ifdef __linux__
    const struct timespec slice = {0, SLICE_NS};
    syscall(SYS_futex, event, FUTEX_WAIT_PRIVATE, seen, &slice, NULL, 0);
#else
    const struct timespec slice = {0, 50000};
    (void)event, (void)seen;
    nanosleep(&slice, NULL);
#endif
}

static void record(int32_t *event, run_state *state)
{
    __atomic_store_n(event, state->run, __ATOMIC_SEQ_CST);
#ifdef __linux__
    /* A waiter counts itself before it looks at the event for the last time: either it sees the
       event, or we see the waiter. */
    if (__atomic_load_n(&state->sleepers, __ATOMIC_SEQ_CST))
        syscall(SYS_futex, event, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
#endif
}

static int wait_for(const int32_t *event, run_state *state, lane_state *lane)
{
    const int64_t now = now_ns(), began = lane->since ? lane->since : now;
    int result = DONE;
    do {
        for (int i = 0; i < 64; i++) {
            if (__atomic_load_n(event, __ATOMIC_ACQUIRE) == state->run) return DONE;
            breathe();
        }
    } while (now_ns() - began < state->spin_ns);
    __atomic_add_fetch(&state->sleepers, 1, __ATOMIC_SEQ_CST);
    for (;;) {
        const int32_t seen = __atomic_load_n(event, __ATOMIC_SEQ_CST);
        if (seen == state->run) break;
        if (__atomic_load_n(&state->stop, __ATOMIC_RELAXED) == LEAVE_NOW) {
            result = LEFT;
            break;
        }
        if (now_ns() - began > state->limit_ns) {
            result = STUCK;
            break;
        }
        if (now_ns() - now > LOOK_NS) {
            lane->since = began;
            result = LOOK;
            break;
        }
        sleep_on(event, seen);
    }
    __atomic_sub_fetch(&state->sleepers, 1, __ATOMIC_SEQ_CST);
    return result;
}

/* Carry out the calls from `word` up to `end`. Without a state there are no events, and nobody to
 * leave for or to tell how far one has come. */
int asyncnet_run_calls(const int64_t *word, const int64_t *end, run_state *state, lane_state *lane)
{
    while (word < end) {
        const call c = read_call(word);
        if (state) {
            const int stop = __atomic_load_n(&state->stop, __ATOMIC_RELAXED);
            __atomic_store_n(&lane->progress, (int64_t)(intptr_t)word, __ATOMIC_RELAXED);
            if (lane->marks) stamp(lane, word);
            if (stop == LEAVE_NOW) return LEFT;
        }
        if (c.n_operands > 0) {
            run_call(&c);
        } else if (c.auxiliary == RECORD) {
            record((int32_t *)(intptr_t)c.dimensions[0], state);
        } else {
            const int result = wait_for((const int32_t *)(intptr_t)c.dimensions[0], state, lane);
            if (result != DONE) return result;
            if (__atomic_load_n(&state->stop, __ATOMIC_RELAXED)) return LEFT;
        }
        word = c.end;
    }
    if (state && lane->marks) stamp(lane, end);
    return DONE;
}

/* Of which source this is the compiled form: the first 16 hexadecimal digits of its SHA-256. */
#define TEXT(x) #x
#define QUOTED(x) TEXT(x)
const char *asyncnet_source(void) { return QUOTED(ASYNCNET_SOURCE); }
