/* A looking glass: a server in an image that tells what it is run as and does small things on request.
 *
 *   glass serve PORT [WORD…]   answers GET and POST on every address
 *   glass check                a health check: 0 unless /tmp/sick exists
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static int words;
static char **word;

static void reply(int client, int status, const char *text) {
    dprintf(client, "HTTP/1.1 %d .\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s", status, strlen(text), text);
}

static void failed(int client) {
    reply(client, 500, strerror(errno));
}

/* uid gid cwd, then the arguments. */
static void who(int client) {
    char text[4096], cwd[1024] = "?";
    int end = snprintf(text, sizeof text, "%d %d %s", getuid(), getgid(), getcwd(cwd, sizeof cwd));
    for (int i = 1; i < words; i++)
        end += snprintf(text + end, sizeof text - end, " %s", word[i]);
    reply(client, 200, text);
}

static void read_file(int client, const char *path) {
    char text[4096];
    int file = open(path, O_RDONLY);
    ssize_t length = file < 0 ? -1 : read(file, text, sizeof text - 1);
    if (length < 0) {
        failed(client);
    } else {
        text[length] = 0;
        reply(client, 200, text);
    }
    close(file);
}

static void write_file(int client, const char *path, const char *body) {
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (file < 0 || write(file, body, strlen(body)) < 0)
        failed(client);
    else
        reply(client, 200, "written");
    close(file);
}

/* Asks HOST:PORT, a looking glass too, what it is run as. */
static void dial(int client, char *where) {
    char *port = strrchr(where, ':');
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *found;
    if (!port) {
        reply(client, 500, "no port");
        return;
    }
    *port++ = 0;
    int error = getaddrinfo(where, port, &hints, &found);
    if (error) {
        reply(client, 500, gai_strerror(error));
        return;
    }
    int other = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(other, found->ai_addr, found->ai_addrlen) < 0) {
        failed(client);
    } else {
        char text[4096];
        size_t length = 0;
        ssize_t piece;
        dprintf(other, "GET /who HTTP/1.1\r\n\r\n");
        while (length < sizeof text - 1 && (piece = read(other, text + length, sizeof text - 1 - length)) > 0)
            length += piece;
        text[length] = 0;
        char *body = strstr(text, "\r\n\r\n");
        reply(client, 200, body ? body + 4 : text);
    }
    close(other);
    freeaddrinfo(found);
}

/* Makes a folder that is user 7's alone, with a file in it. */
static void lock(int client, const char *path) {
    char file[2100];
    snprintf(file, sizeof file, "%s/file", path);
    int made = mkdir(path, 0700) < 0 ? -1 : open(file, O_WRONLY | O_CREAT, 0600);
    if (made < 0 || chown(file, 7, 7) < 0 || chown(path, 7, 7) < 0)
        failed(client);
    else
        reply(client, 200, "locked");
    close(made);
}

static void answer(int client) {
    char request[8192], path[2048] = "";
    size_t length = 0;
    ssize_t piece;
    char *body = NULL;
    /* A body ends where its length says; there is always one length, 0 for GET. */
    while (length < sizeof request - 1 && (piece = read(client, request + length, sizeof request - 1 - length)) > 0) {
        length += piece;
        request[length] = 0;
        body = strstr(request, "\r\n\r\n");
        char *given = strstr(request, "ontent-") ? strcasestr(request, "content-length:") : NULL;
        if (body && (!given || strlen(body + 4) >= strtoul(given + 15, NULL, 10)))
            break;
    }
    sscanf(request, "%*s %2047s", path);
    char *argument = strchr(path, '?');
    argument = argument ? (*argument = 0, argument + 1) : "";
    if (!strcmp(path, "/env"))
        reply(client, 200, getenv(argument) ? getenv(argument) : "(unset)");
    else if (!strcmp(path, "/file") && !strncmp(request, "POST", 4))
        write_file(client, argument, body + 4);
    else if (!strcmp(path, "/file"))
        read_file(client, argument);
    else if (!strcmp(path, "/give"))
        /* Gives a file to user 7. */
        chown(argument, 7, 7) < 0 ? failed(client) : reply(client, 200, "given");
    else if (!strcmp(path, "/lock"))
        lock(client, argument);
    else if (!strcmp(path, "/dial"))
        dial(client, argument);
    else
        who(client);
}

int main(int count, char **arguments) {
    words = count;
    word = arguments;
    if (count > 1 && !strcmp(arguments[1], "check"))
        return access("/tmp/sick", F_OK) == 0;
    int on = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(count > 2 ? atoi(arguments[2]) : 8000)};
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    signal(SIGPIPE, SIG_IGN);
    /* Process 1 of a container gets no default actions. */
    signal(SIGTERM, _exit);
    if (bind(listener, (struct sockaddr *)&at, sizeof at) < 0 || listen(listener, 64) < 0) {
        perror("listen");
        return 1;
    }
    for (;;) {
        int client = accept(listener, NULL, NULL);
        if (client >= 0) {
            answer(client);
            close(client);
        }
    }
}
