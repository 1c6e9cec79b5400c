/* The limit: one process, epoll, ready frames, one write a client and round. It knows as much of HTTP as it needs. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define SIZE 500                /* bytes of JSON */
#define FRAME (SIZE + 4)        /* behind a header of 4 bytes */
#define CLIENTS 4096

static const char ACCEPT[] = /* what RFC 6455 answers to the one key that the load generator sends */
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
static int clients[CLIENTS], count;

static long long now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec * 1000000000LL + at.tv_nsec;
}

static void wait_until(long long when) {
    struct timespec at = {when / 1000000000LL, when % 1000000000LL};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL) == EINTR) {}
}

static void event(char *frame, long offset) {
    char tail[64];
    int tail_size = sprintf(tail, "\"},\"offset\":%ld}", offset);
    int size = sprintf(frame, "\x81\x7e\x01\xf4{\"session_id\":\"bench0000\",\"event\":\"claude_text\","
        "\"timestamp\":\"2026-11-22T10:30:00.000Z\",\"data\":{\"turn\":1,\"block\":0,\"text\":\"at %lld ", now());
    memset(frame + size, 'x', FRAME - size - tail_size);
    memcpy(frame + FRAME - tail_size, tail, tail_size);
}

static void send_all(int client, const char *data, size_t size) {
    while (size > 0) {
        ssize_t took = send(client, data, size, MSG_NOSIGNAL);
        if (took < 0) return; /* it has left */
        data += took;
        size -= took;
    }
}

static void publish(long events, long times, double pause) {
    char *frames = malloc(events * FRAME + 64);
    long long began = now();
    long offset = 0;
    for (long at = 0; at < times; at++) {
        wait_until(began + (long long)(at * pause * 1e9));
        for (long each = 0; each < events; each++) event(frames + each * FRAME, ++offset);
        for (int place = 0; place < count; place++) send_all(clients[place], frames, events * FRAME);
    }
    free(frames);
}

static void each(long times, double pause) {
    char frame[FRAME + 64];
    long long began = now();
    for (long at = 0; at < times * count; at++) {
        wait_until(began + (long long)(at * pause * 1e9 / count));
        event(frame, at / count + 1);
        send_all(clients[at % count], frame, FRAME);
    }
}

int main(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0), poll = epoll_create1(0), on = 1;
    struct epoll_event entry = {.events = EPOLLIN};
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 1024)) return 1;
    getsockname(listener, (struct sockaddr *)&address, &length);
    entry.data.fd = listener;
    epoll_ctl(poll, EPOLL_CTL_ADD, listener, &entry);
    entry.data.fd = 0;
    epoll_ctl(poll, EPOLL_CTL_ADD, 0, &entry);
    printf("[[%d, \"/\"]]\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        char data[4096];
        if (epoll_wait(poll, &entry, 1, -1) < 1) continue;
        int fd = entry.data.fd;
        if (fd == listener) {
            int client = accept(listener, NULL, NULL);
            if (client < 0 || count == CLIENTS) return 1;
            setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
            entry.data.fd = client;
            epoll_ctl(poll, EPOLL_CTL_ADD, client, &entry);
            clients[count++] = client;
            continue;
        }
        ssize_t size = read(fd, data, sizeof data - 1);
        if (fd == 0) {
            long first, times;
            double pause;
            if (size <= 0) return 0;
            data[size] = 0;
            if (sscanf(data, "publish %ld %ld %lf", &first, &times, &pause) == 3) publish(first, times, pause);
            else if (sscanf(data, "each %ld %lf", &times, &pause) == 2) each(times, pause);
            else if (sscanf(data, "replay %ld", &first) == 1) publish(first, 1, 0);
            puts("done");
            fflush(stdout);
        } else if (size > 0) {
            send_all(fd, ACCEPT, sizeof ACCEPT - 1); /* a client says one thing: its request */
        } else {
            for (int place = 0; place < count; place++)
                if (clients[place] == fd) clients[place] = clients[--count];
            close(fd);
        }
    }
}
