/* The yardsticks of `make bench`: the dialer's system calls, without Python.
 *
 *   dial_loop IP PORT SECONDS                flat out; prints dials, failures, mean ns
 *   dial_loop IP PORT SECONDS INTERVAL_US    in rendezvous: spins until each slot of the clock, dials
 *                                            from the slot's port, prints "slot failed" for each dial
 */
#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { FIRST_PORT = 20000, PORTS = 40000, PREPARE_NS = 60000 };

static struct sockaddr_in remote;

static uint64_t now_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static int make_socket(long timeout_us)
{
    const struct timeval timeout = {.tv_sec = 0, .tv_usec = timeout_us};
    const struct linger reset = {.l_onoff = 1, .l_linger = 0};
    int sock = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(sock, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
    setsockopt(sock, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    return sock;
}

static int dial(int sock)
{
    return connect(sock, (struct sockaddr *)&remote, sizeof remote) != 0;
}

static void flat_out(uint64_t lasting_ns)
{
    const uint64_t end = now_ns(CLOCK_MONOTONIC) + lasting_ns;
    uint64_t dials = 0, failed = 0, spent = 0;

    while (now_ns(CLOCK_MONOTONIC) < end) {
        int sock = make_socket(500000);
        uint64_t start = now_ns(CLOCK_MONOTONIC);
        failed += dial(sock);
        spent += now_ns(CLOCK_MONOTONIC) - start;
        close(sock);
        dials++;
    }
    printf("%llu %llu %llu\n", (unsigned long long)dials, (unsigned long long)failed,
           (unsigned long long)(dials ? spent / dials : 0));
}

static void rendezvous(uint64_t lasting_ns, uint64_t interval_ns)
{
    const uint64_t end = now_ns(CLOCK_REALTIME) + lasting_ns;

    for (;;) {
        uint64_t slot = (now_ns(CLOCK_REALTIME) + PREPARE_NS) / interval_ns + 1;
        if (slot * interval_ns > end)
            return;
        struct sockaddr_in local = {.sin_family = AF_INET, .sin_port = htons(FIRST_PORT + slot % PORTS)};
        const int on = 1;
        int sock = make_socket(4000);
        setsockopt(sock, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        bind(sock, (struct sockaddr *)&local, sizeof local);
        while (now_ns(CLOCK_REALTIME) < slot * interval_ns)
            ;
        printf("%llu %d\n", (unsigned long long)slot, dial(sock));
        close(sock);
    }
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: dial_loop IP PORT SECONDS [INTERVAL_US]\n");
        return 2;
    }
    remote.sin_family = AF_INET;
    remote.sin_port = htons((uint16_t)atoi(argv[2]));
    inet_pton(AF_INET, argv[1], &remote.sin_addr);
    const uint64_t lasting_ns = (uint64_t)(atof(argv[3]) * 1e9);
    if (argc > 4)
        rendezvous(lasting_ns, strtoull(argv[4], NULL, 10) * 1000);
    else
        flat_out(lasting_ns);
    return 0;
}
