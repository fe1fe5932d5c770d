/* The yardstick of `make bench`: the dialer's system calls, flat out, without Python.
 *
 *   dial_loop IP PORT SECONDS      prints the number of dials
 */
#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: dial_loop IP PORT SECONDS\n");
        return 2;
    }
    struct sockaddr_in remote = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[2]))};
    inet_pton(AF_INET, argv[1], &remote.sin_addr);
    const struct timeval timeout = {.tv_sec = 0, .tv_usec = 500000};
    const struct linger reset = {.l_onoff = 1, .l_linger = 0};
    const uint64_t end = now_ns() + (uint64_t)(atof(argv[3]) * 1e9);
    uint64_t dials = 0, failed = 0, spent = 0;

    while (now_ns() < end) {
        int sock = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        setsockopt(sock, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
        setsockopt(sock, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        uint64_t start = now_ns();
        failed += connect(sock, (struct sockaddr *)&remote, sizeof remote) != 0;
        spent += now_ns() - start;
        close(sock);
        dials++;
    }
    printf("%llu %llu %llu\n", (unsigned long long)dials, (unsigned long long)failed,
           (unsigned long long)(dials ? spent / dials : 0));
    return 0;
}
