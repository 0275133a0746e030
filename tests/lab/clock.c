/*
 * A dead clock battery, for one service: the time of day starts anew at LAB_CLOCK (seconds since 1970) and runs on from
 * there. The monotonic clock, sleeps and time-outs stay real, as they do on a machine that was switched on in 1970.
 *
 * libfaketime 0.9.10 (Debian 12) cannot be used for this: told to leave the monotonic clock alone, it still takes
 * absolute monotonic deadlines for times of day, and Python's time.sleep and queue.get(timeout=...) never return.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static int (*real_clock_gettime)(clockid_t, struct timespec *);
static time_t behind;

__attribute__((constructor)) static void begin(void)
{
    const char *start = getenv("LAB_CLOCK");
    struct timespec now;

    real_clock_gettime = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    if (start && real_clock_gettime(CLOCK_REALTIME, &now) == 0)
        behind = now.tv_sec - (time_t)atoll(start);
}

int clock_gettime(clockid_t clock, struct timespec *when)
{
    int failed;

    if (!real_clock_gettime) /* called from another library's constructor, before ours */
        begin();
    failed = real_clock_gettime(clock, when);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        when->tv_sec -= behind;
    return failed;
}

int gettimeofday(struct timeval *restrict when, void *restrict zone)
{
    struct timespec now;

    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &now))
        return -1;
    when->tv_sec = now.tv_sec;
    when->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *when)
{
    struct timespec now;

    if (clock_gettime(CLOCK_REALTIME, &now))
        return (time_t)-1;
    if (when)
        *when = now.tv_sec;
    return now.tv_sec;
}
