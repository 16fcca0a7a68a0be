/* Preloaded into the daemon: a disk whose errors come when a file says so, and that forgets like a real one.
 *
 * While the file $CHAOS_TRIGGER is there, each call that it names on a file below $CHAOS_ROOT fails with EIO.  Where a
 * sync fails, what was written since the last sync becomes zeros, and the next sync succeeds: so does Linux, which marks
 * the pages clean that it could not write (fsync(2), since 4.13).
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define FILES 1024

static struct { off_t from, to; } unsynced[FILES];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

#define REAL(name) static __typeof__(&name) real; if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static int is_ours(int fd)
{
    char link[32], path[512];
    const char *root = getenv("CHAOS_ROOT");
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (!root || size < 0 || fd >= FILES)
        return 0;
    path[size] = 0;
    return strncmp(path, root, strlen(root)) == 0 && strstr(path, "-shm") == NULL;
}

static int fails(const char *call, int fd)
{
    char text[64] = "";
    const char *trigger = getenv("CHAOS_TRIGGER");
    FILE *file = trigger && is_ours(fd) ? fopen(trigger, "r") : NULL;
    if (!file)
        return 0;
    size_t size = fread(text, 1, sizeof text - 1, file);
    text[size] = 0;
    fclose(file);
    return strstr(text, call) != NULL;
}

static void note(int fd, off_t from, ssize_t size)
{
    if (size <= 0 || !is_ours(fd))
        return;
    pthread_mutex_lock(&lock);
    if (unsynced[fd].to == 0 || from < unsynced[fd].from)
        unsynced[fd].from = from;
    if (from + size > unsynced[fd].to)
        unsynced[fd].to = from + size;
    pthread_mutex_unlock(&lock);
}

static void settle(int fd)
{
    if (fd < 0 || fd >= FILES)
        return;
    pthread_mutex_lock(&lock);
    unsynced[fd].from = unsynced[fd].to = 0;
    pthread_mutex_unlock(&lock);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at)
{
    REAL(pwrite64);
    if (fails("write", fd)) {
        errno = EIO;
        return -1;
    }
    ssize_t written = real(fd, data, size, at);
    note(fd, at, written);
    return written;
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at)
{
    return pwrite64(fd, data, size, at);
}

ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t at)
{
    REAL(pwritev64);
    if (fails("write", fd)) {
        errno = EIO;
        return -1;
    }
    ssize_t written = real(fd, parts, count, at);
    note(fd, at, written);
    return written;
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at)
{
    return pwritev64(fd, parts, count, at);
}

ssize_t pwritev64v2(int fd, const struct iovec *parts, int count, off64_t at, int flags)
{
    REAL(pwritev64v2);
    if (fails("write", fd)) {
        errno = EIO;
        return -1;
    }
    ssize_t written = real(fd, parts, count, at, flags);
    note(fd, at, written);
    return written;
}

ssize_t pwritev2(int fd, const struct iovec *parts, int count, off_t at, int flags)
{
    return pwritev64v2(fd, parts, count, at, flags);
}

/* Files that hold nothing unsynced are synced; directories, whose writes are not known here, fail always. */
static int fails_sync(int fd)
{
    static const char zeros[4096];
    REAL(pwrite64);
    if (!fails("sync", fd))
        return 0;
    int writable = (fcntl(fd, F_GETFL) & O_ACCMODE) != O_RDONLY;
    pthread_mutex_lock(&lock);
    off_t at = unsynced[fd].from, to = unsynced[fd].to;
    pthread_mutex_unlock(&lock);
    settle(fd);
    if (writable && at == to)
        return 0;
    while (writable && at < to) {
        ssize_t written = real(fd, zeros, to - at < 4096 ? to - at : 4096, at);
        if (written <= 0)
            break;
        at += written;
    }
    errno = EIO;
    return 1;
}

int fdatasync(int fd)
{
    REAL(fdatasync);
    if (fails_sync(fd))
        return -1;
    settle(fd);
    return real(fd);
}

int fsync(int fd)
{
    REAL(fsync);
    if (fails_sync(fd))
        return -1;
    settle(fd);
    return real(fd);
}

int close(int fd)
{
    REAL(close);
    settle(fd);
    return real(fd);
}
