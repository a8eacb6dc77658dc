/* librabbitmq in a bare loop: each message acknowledged after it was read. */

#include <amqp.h>
#include <amqp_tcp_socket.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec + at.tv_nsec / 1e9;
}

static double used(void) {
    struct rusage all;
    getrusage(RUSAGE_SELF, &all);
    return all.ru_utime.tv_sec + all.ru_stime.tv_sec +
           (all.ru_utime.tv_usec + all.ru_stime.tv_usec) / 1e6;
}

static double memory(void) {
    struct rusage all;
    getrusage(RUSAGE_SELF, &all);
    return all.ru_maxrss / 1024.0;
}

static void check(int good, const char *doing) {
    if (!good) {
        fprintf(stderr, "%s failed\n", doing);
        exit(1);
    }
}

static int normal(amqp_rpc_reply_t reply) {
    return reply.reply_type == AMQP_RESPONSE_NORMAL;
}

/* Host, port, virtual host, queue, messages, warm-up, prefetch. */
int main(int count, char **given) {
    check(count == 8, "reading the arguments");
    amqp_connection_state_t connection = amqp_new_connection();
    amqp_socket_t *socket = amqp_tcp_socket_new(connection);
    check(socket && !amqp_socket_open(socket, given[1], atoi(given[2])), "connecting");
    check(normal(amqp_login(connection, given[3], 0, 131072, 0, AMQP_SASL_METHOD_PLAIN,
                            "guest", "guest")),
          "logging in");
    amqp_channel_open(connection, 1);
    check(normal(amqp_get_rpc_reply(connection)), "opening a channel");
    amqp_basic_qos(connection, 1, 0, atoi(given[7]), 0);
    amqp_basic_consume(connection, 1, amqp_cstring_bytes(given[4]), amqp_empty_bytes, 0,
                       0, 0, amqp_empty_table);
    check(normal(amqp_get_rpc_reply(connection)), "consuming");

    long messages = atol(given[5]), warm_up = atol(given[6]);
    double began = 0, cost = 0;
    for (long number = 1; number <= messages; number++) {
        amqp_envelope_t message;
        amqp_maybe_release_buffers(connection);
        check(normal(amqp_consume_message(connection, &message, NULL, 0)), "reading");
        check(!amqp_basic_ack(connection, 1, message.delivery_tag, 0), "acknowledging");
        amqp_destroy_envelope(&message);
        if (number == warm_up) {
            began = now();
            cost = used();
        }
    }
    long measured = messages - warm_up;
    printf("{\"rate\": %f, \"cpu\": %f, \"memory\": %f}\n", measured / (now() - began),
           (used() - cost) / measured * 1e6, memory());
    fflush(stdout);
    pause();
    return 0;
}
