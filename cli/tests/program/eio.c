/* Makes reads fail that touch certain bytes of one file: EIO_FILE names it, EIO_AT lists the bytes, by commas. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static int is_bad(int fd, size_t count, off64_t offset)
{
    const char *file = getenv("EIO_FILE"), *at = getenv("EIO_AT");
    struct stat one, other;
    if (!file || !at || stat(file, &one) || fstat(fd, &other) || one.st_dev != other.st_dev || one.st_ino != other.st_ino)
        return 0;
    while (*at) {
        char *end;
        long long bad = strtoll(at, &end, 10);
        if (end == at)
            return 0;
        /* A disk fails by sectors. */
        if (bad / 512 * 512 < offset + (off64_t)count && offset < bad / 512 * 512 + 512)
            return 1;
        at = *end == ',' ? end + 1 : end;
    }
    return 0;
}

ssize_t pread64(int fd, void *buf, size_t count, off64_t offset)
{
    static ssize_t (*real)(int, void *, size_t, off64_t);
    if (!real)
        real = (ssize_t (*)(int, void *, size_t, off64_t))dlsym(RTLD_NEXT, "pread64");
    if (is_bad(fd, count, offset)) {
        errno = EIO;
        return -1;
    }
    return real(fd, buf, count, offset);
}

ssize_t pread(int fd, void *buf, size_t count, off_t offset)
{
    return pread64(fd, buf, count, offset);
}
