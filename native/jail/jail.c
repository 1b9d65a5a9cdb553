/*
 * netemu-jail: takes from a command, before it begins, what it does not need, and runs it. For netemu, though any program will do.
 *
 *   netemu-jail --read /opt/netemu --write /var/lib/netemu --user 65534:65534 --fd 3 -- node /opt/netemu/dist/cli/main.js …
 *
 * In this order: the places are opened by descriptor, no link followed; namespaces; limits; user and groups; every capability, for good; files
 * (Landlock); descriptors and environment; exec. Whatever cannot be done ends it with status 125 and one line that says what: nothing runs
 * half-confined. A process that runs already can do less of this to itself (see `--sandbox`): it has threads, and it has read its modules.
 *
 * Files: the command itself may be executed with its ELF interpreter, the system's libraries and resolver files may be read, and what --read,
 * --write and --bind name. Each of those must exist and must not lead through a symbolic link: whoever can plant one there would choose what
 * the jail leaves open (CVE-2026-1386 is that in another launcher).
 */

#include "../src/netemu.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_openat2
#define SYS_openat2 437
#endif
#ifndef SYS_close_range
#define SYS_close_range 436
#endif

enum { MAX_PLACES = 256, MAX_FDS = 64, MAX_ENV = 64, FAILED_STATUS = 125, NOT_RUN_STATUS = 126, LAST_CAPABILITY = 63 };

/* openat2(2) */
struct how {
  uint64_t flags, mode, resolve;
};
enum { NO_MAGIC_LINKS = 2, NO_LINKS = 4, CLOEXEC_RANGE = 4 };

struct jail {
  struct {
    int fd;
    unsigned rights;
  } places[MAX_PLACES];
  int place_count;
  int fds[MAX_FDS], fd_count;
  const char *env[MAX_ENV];
  int env_count;
  bool files, namespaces, own_net, change_user;
  uid_t uid;
  gid_t gid;
  rlim_t open_files;
};

__attribute__((noreturn, format(printf, 1, 2))) static void fail(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fputs("netemu-jail: ", stderr);
  vfprintf(stderr, format, arguments);
  fputc('\n', stderr);
  exit(FAILED_STATUS);
}

static long number(const char *option, const char *text, long limit, char until, const char **end) {
  char *after;
  errno = 0;
  long value = text[0] >= '0' && text[0] <= '9' ? strtol(text, &after, 10) : -1;
  if (value < 0 || errno != 0 || value > limit || *after != until) fail("%s expects a number, not '%s'", option, text);
  if (end != NULL) *end = after + 1;
  return value;
}

static void add_place(struct jail *j, int fd, unsigned rights) {
  if (j->place_count == MAX_PLACES) fail("more than %d places", MAX_PLACES);
  j->places[j->place_count].fd = fd;
  j->places[j->place_count++].rights = rights;
}

/* A place that the user named: as it is, through no link. */
static void add_named_place(struct jail *j, const char *option, const char *path, unsigned rights) {
  struct how how = {.flags = O_PATH | O_CLOEXEC, .resolve = NO_LINKS | NO_MAGIC_LINKS};
  int fd = (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof how);
  if (fd < 0 && errno == ELOOP) fail("%s %s: is a symbolic link, or leads through one", option, path);
  if (fd < 0) fail("%s %s: %s", option, path, strerror(errno));
  add_place(j, fd, rights);
}

static const struct {
  const char *path;
  unsigned rights;
} SYSTEM[] = {
    {"/usr/lib", NE_MAY_READ},         {"/usr/lib64", NE_MAY_READ},        {"/usr/local/lib", NE_MAY_READ},
    {"/usr/share", NE_MAY_READ},       {"/lib", NE_MAY_READ},              {"/lib64", NE_MAY_READ},
    {"/proc", NE_MAY_READ},            {"/sys", NE_MAY_READ},              {"/etc/resolv.conf", NE_MAY_READ},
    {"/etc/hosts", NE_MAY_READ},       {"/etc/host.conf", NE_MAY_READ},    {"/etc/nsswitch.conf", NE_MAY_READ},
    {"/etc/gai.conf", NE_MAY_READ},    {"/etc/services", NE_MAY_READ},     {"/etc/protocols", NE_MAY_READ},
    {"/etc/group", NE_MAY_READ},       {"/etc/passwd", NE_MAY_READ},       {"/etc/localtime", NE_MAY_READ},
    {"/etc/ld.so.cache", NE_MAY_READ}, {"/etc/ssl/certs", NE_MAY_READ},    {"/etc/ssl/openssl.cnf", NE_MAY_READ},
    {"/dev/null", NE_MAY_DRIVE},       {"/dev/zero", NE_MAY_DRIVE},        {"/dev/full", NE_MAY_DRIVE},
    {"/dev/random", NE_MAY_DRIVE},     {"/dev/urandom", NE_MAY_DRIVE},     {"/dev/tty", NE_MAY_DRIVE},
    {"/dev/pts", NE_MAY_DRIVE},        {"/dev/ptmx", NE_MAY_DRIVE},        {"/dev/net/tun", NE_MAY_DRIVE},
    {"/dev/vhost-net", NE_MAY_DRIVE},  {"/dev/netmap", NE_MAY_DRIVE},
};

/* Those that there are; the system's own links are followed. */
static void add_system_places(struct jail *j) {
  for (size_t i = 0; i < sizeof SYSTEM / sizeof SYSTEM[0]; i++) {
    int fd = open(SYSTEM[i].path, O_PATH | O_CLOEXEC);
    if (fd >= 0) add_place(j, fd, SYSTEM[i].rights);
  }
}

/* The command's file, looked up in PATH where its name has no slash. */
static void find_command(const char *name, char path[PATH_MAX]) {
  if (strchr(name, '/') != NULL) {
    if (realpath(name, path) == NULL) fail("%s: %s", name, strerror(errno));
    return;
  }
  const char *folders = getenv("PATH");
  for (const char *at = folders == NULL ? "/usr/bin:/bin" : folders; at != NULL && *at != 0;) {
    size_t length = strcspn(at, ":");
    char candidate[PATH_MAX];
    int needed = snprintf(candidate, sizeof candidate, "%.*s/%s", (int)length, at, name);
    if (at[0] == '/' && needed < (int)sizeof candidate && access(candidate, X_OK) == 0 && realpath(candidate, path) != NULL) return;
    at = at[length] == ':' ? at + length + 1 : NULL;
  }
  fail("%s: not found in PATH", name);
}

/* The command and what the kernel runs it by (its PT_INTERP) may be executed, and nothing else. */
static void add_command(struct jail *j, const char *path) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) fail("%s: %s", path, strerror(errno));
  Elf64_Ehdr head;
  if (pread(fd, &head, sizeof head, 0) != sizeof head || memcmp(head.e_ident, ELFMAG, SELFMAG) != 0 || head.e_ident[EI_CLASS] != ELFCLASS64)
    fail("%s: no 64-bit program; a script is run by naming its interpreter", path);
  for (unsigned i = 0; i < head.e_phnum && i < 128; i++) {
    Elf64_Phdr part;
    char interpreter[PATH_MAX];
    if (pread(fd, &part, sizeof part, (off_t)(head.e_phoff + (uint64_t)i * sizeof part)) != sizeof part) fail("%s: cut short", path);
    if (part.p_type != PT_INTERP) continue;
    if (part.p_filesz == 0 || part.p_filesz > sizeof interpreter ||
        pread(fd, interpreter, part.p_filesz, (off_t)part.p_offset) != (ssize_t)part.p_filesz || interpreter[part.p_filesz - 1] != 0)
      fail("%s: its interpreter has no name", path);
    int loader = open(interpreter, O_PATH | O_CLOEXEC);
    if (loader < 0) fail("%s: %s", interpreter, strerror(errno));
    add_place(j, loader, NE_MAY_RUN);
  }
  add_place(j, fd, NE_MAY_RUN);
}

static bool write_text(const char *path, const char *text) {
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return false;
  bool done = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
  close(fd);
  return done;
}

/* Without root a namespace of users comes first, in which the caller is whom it was. */
static void enter_namespaces(const struct jail *j) {
  int wanted = CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNS | CLONE_NEWCGROUP | (j->own_net ? CLONE_NEWNET : 0);
  uid_t uid = geteuid();
  gid_t gid = getegid();
  if (uid != 0) wanted |= CLONE_NEWUSER;
  if (unshare(wanted) != 0) fail("namespaces: %s (--namespaces off does without)", strerror(errno));
  if (uid == 0) return;
  char map[64];
  snprintf(map, sizeof map, "%u %u 1", uid, uid);
  bool mapped = write_text("/proc/self/setgroups", "deny") && write_text("/proc/self/uid_map", map);
  snprintf(map, sizeof map, "%u %u 1", gid, gid);
  if (!mapped || !write_text("/proc/self/gid_map", map)) fail("namespaces: the map of users: %s", strerror(errno));
}

static void set_limits(const struct jail *j) {
  struct rlimit none = {0, 0}, files;
  if (setrlimit(RLIMIT_CORE, &none) != 0) fail("core dumps: %s", strerror(errno));
  if (j->open_files == 0) return;
  files.rlim_cur = files.rlim_max = j->open_files;
  if (setrlimit(RLIMIT_NOFILE, &files) != 0) fail("--nofile: %s", strerror(errno));
}

static void set_user(const struct jail *j) {
  if (!j->change_user) return;
  if (setgroups(0, NULL) != 0 || setresgid(j->gid, j->gid, j->gid) != 0 || setresuid(j->uid, j->uid, j->uid) != 0)
    fail("--user: %s", strerror(errno));
}

/* All of them, for this process and whatever it becomes: a program run as root gets none either. Before the user changes, for that takes one. */
static void bar_capabilities(void) {
  for (int capability = 0; capability <= LAST_CAPABILITY; capability++) {
    int held = prctl(PR_CAPBSET_READ, capability, 0, 0, 0);
    if (held < 0) break;
    if (held == 1 && prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0 && geteuid() == 0) fail("capabilities: %s", strerror(errno));
  }
  prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  int bits = SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_CAP_AMBIENT_RAISE | SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED;
  if (prctl(PR_SET_SECUREBITS, bits, 0, 0, 0) != 0 && geteuid() == 0) fail("capabilities: %s", strerror(errno));
}

static void drop_capabilities(void) {
  struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
  struct __user_cap_data_struct none[2] = {{0}};
  if (syscall(SYS_capset, &head, none) != 0) fail("capabilities: %s", strerror(errno));
}

static void restrict_files(const struct jail *j) {
  if (!j->files) return;
  int ruleset = ne_landlock_ruleset();
  if (ruleset < 0) fail("files: this kernel has no Landlock: %s (--files off does without)", strerror(-ruleset));
  for (int i = 0; i < j->place_count; i++) {
    int error = ne_landlock_allow_open(ruleset, j->places[i].fd, j->places[i].rights);
    if (error != 0) fail("files: %s", strerror(-error));
  }
  int error = ne_landlock_enter(ruleset);
  if (error != 0) fail("files: %s", strerror(-error));
}

/* Nothing is inherited but standard input, output, error and what was named. */
static void leave_descriptors(const struct jail *j) {
  if (syscall(SYS_close_range, 3, ~0U, CLOEXEC_RANGE) != 0) fail("descriptors: %s", strerror(errno));
  for (int i = 0; i < j->fd_count; i++) {
    if (fcntl(j->fds[i], F_SETFD, 0) != 0) fail("--fd %d: %s", j->fds[i], strerror(errno));
  }
}

/* What no program does well without, and what was named. */
static char **environment(const struct jail *j) {
  static const char *const KEPT[] = {"PATH", "HOME", "LANG", "TERM", "TZ"};
  static char *result[MAX_ENV + sizeof KEPT / sizeof KEPT[0] + 1];
  int count = 0;
  for (int i = 0; i < j->env_count + (int)(sizeof KEPT / sizeof KEPT[0]); i++) {
    const char *name = i < j->env_count ? j->env[i] : KEPT[i - j->env_count];
    const char *value = getenv(name);
    if (value != NULL && asprintf(&result[count++], "%s=%s", name, value) < 0) fail("environment: %s", strerror(errno));
  }
  return result;
}

static void usage(void) {
  fputs("usage: netemu-jail [option…] -- COMMAND [argument…]\n"
        "  --read PATH       a folder or file that may be read\n"
        "  --write PATH      a folder or file that may be read and written\n"
        "  --bind PATH       a folder that sockets may be made in\n"
        "  --user UID:GID    whom the command runs as (needs root)\n"
        "  --net host|none   the host's network (default), or none at all\n"
        "  --fd N            an open descriptor that the command gets; all others are closed\n"
        "  --env NAME        an environment variable that is kept, beside PATH, HOME, LANG, TERM and TZ\n"
        "  --nofile N        how many descriptors may be open\n"
        "  --files off       do without Landlock        --namespaces off  do without namespaces\n"
        "Capabilities, new privileges and core dumps are always taken away. Options may repeat. Exit status 125: not confined, not run.\n",
        stdout);
}

static bool on_or_off(const char *option, const char *text) {
  if (strcmp(text, "on") != 0 && strcmp(text, "off") != 0) fail("%s expects on or off", option);
  return text[1] == 'n';
}

static void take(struct jail *j, const char *option, const char *value) {
  const char *rest;
  if (strcmp(option, "--read") == 0) add_named_place(j, option, value, NE_MAY_READ);
  else if (strcmp(option, "--write") == 0) add_named_place(j, option, value, NE_MAY_WRITE | NE_MAY_BIND);
  else if (strcmp(option, "--bind") == 0) add_named_place(j, option, value, NE_MAY_BIND);
  else if (strcmp(option, "--user") == 0) {
    j->uid = (uid_t)number(option, value, INT_MAX, ':', &rest);
    j->gid = (gid_t)number(option, rest, INT_MAX, 0, NULL);
    j->change_user = true;
  } else if (strcmp(option, "--net") == 0) {
    if (strcmp(value, "host") != 0 && strcmp(value, "none") != 0) fail("--net expects host or none");
    j->own_net = value[0] == 'n';
  } else if (strcmp(option, "--fd") == 0) {
    if (j->fd_count == MAX_FDS) fail("more than %d descriptors", MAX_FDS);
    int fd = (int)number(option, value, INT_MAX, 0, NULL);
    if (fcntl(fd, F_GETFD) < 0) fail("--fd %d: %s", fd, strerror(errno));
    j->fds[j->fd_count++] = fd;
  } else if (strcmp(option, "--env") == 0) {
    if (j->env_count == MAX_ENV) fail("more than %d variables", MAX_ENV);
    j->env[j->env_count++] = value;
  } else if (strcmp(option, "--nofile") == 0) j->open_files = (rlim_t)number(option, value, 1 << 20, 0, NULL);
  else if (strcmp(option, "--files") == 0) j->files = on_or_off(option, value);
  else if (strcmp(option, "--namespaces") == 0) j->namespaces = on_or_off(option, value);
  else fail("no option %s (--help lists them)", option);
}

int main(int argc, char **argv) {
  struct jail j = {.files = true, .namespaces = true};
  int at = 1;
  if (argc > 1 && strcmp(argv[1], "--help") == 0) {
    usage();
    return 0;
  }
  /* Before anything of ours is opened: --fd names what the caller opened. */
  for (; at < argc && strcmp(argv[at], "--") != 0; at += 2) {
    if (strcmp(argv[at], "--fd") == 0 && at + 1 < argc) take(&j, argv[at], argv[at + 1]);
  }
  for (at = 1; at < argc && strcmp(argv[at], "--") != 0; at += 2) {
    if (at + 1 == argc || strcmp(argv[at + 1], "--") == 0) fail("%s needs a value", argv[at]);
    if (strcmp(argv[at], "--fd") != 0) take(&j, argv[at], argv[at + 1]);
  }
  if (at + 1 >= argc) fail("no command (--help tells the options)");
  if (j.own_net && !j.namespaces) fail("--net none needs namespaces");
  char command[PATH_MAX];
  find_command(argv[at + 1], command);
  add_command(&j, command);
  add_system_places(&j);

  umask(077);
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) fail("no_new_privs: %s", strerror(errno));
  if (j.namespaces) enter_namespaces(&j);
  set_limits(&j);
  bar_capabilities();
  set_user(&j);
  drop_capabilities();
  restrict_files(&j);
  leave_descriptors(&j);
  execve(command, argv + at + 1, environment(&j));
  fprintf(stderr, "netemu-jail: %s: %s\n", command, strerror(errno));
  return NOT_RUN_STATUS;
}
