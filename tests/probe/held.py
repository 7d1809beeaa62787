"""held.py BATCH: attempts at files and programs that rules are about, made and told of as in probe.py.

Each has a directory of its own, named by its id: `secret/file` and `key` are denied and hold the token, `kept` is read-only. Its ways are tried one by one:
`got` names those that worked, `error` those that did not, with what each was told. Whether anything of `kept` changed is for the host to say.
"""
import ctypes, errno, glob, json, mmap, os, subprocess, sys, threading

from probe import P, at, attempt, call, libc, run_one

UNLISTED = "/usr/bin/factor"


class Ways:
    """The ways of one attempt. A way returns what it read or printed; what has the token in it, or says True, has worked."""

    def __init__(self, t, step):
        self.token, self.failed = t["token"], []
        self.root = f"{os.getcwd()}/{t['id']}"
        at(step)

    def __truediv__(self, name):
        return f"{self.root}/{name}"

    def __call__(self, name, way):
        try:
            said = way()
            if said is True or (isinstance(said, bytes) and self.token in said):
                P.got += name.replace(" ", "-") + " "
            else:
                self.failed.append(f"{name}: nothing")
        except OSError as error:
            self.failed.append(f"{name}: {errno.errorcode.get(error.errno, error.errno)}")
        except subprocess.CalledProcessError as error:
            self.failed.append(f"{name}: {error.returncode}")

    def over(self):
        if self.failed:
            raise Told("; ".join(self.failed))


class Told(Exception):
    pass


def read(path, **more):
    with open(path, "rb", **more) as file:
        return file.read()


def done(result):
    """Of a call that is to change something: it was let through."""
    call(result)
    return True


def link(way, to, name):
    at = way / name
    os.symlink(to, at)
    return at


@attempt("F01")
def links(t):
    way = Ways(t, "open")
    way("a link to the file", lambda: read(link(way, way / "secret/file", "l1")))
    way("a relative one", lambda: read(link(way, "secret/../key", "l2")))
    way("a link to the directory", lambda: read(link(way, way / "secret", "l3") + "/file"))
    way("a chain of links", lambda: read(link(way, link(way, link(way, way / "key", "l4"), "l5"), "l6")))
    way.over()


@attempt("F02")
def hard_links(t):
    way = Ways(t, "link")
    def linked(source, name):
        os.link(source, way / name)
        return read(way / name)
    way("the file", lambda: linked(way / "key", "h1"))
    way("one below", lambda: linked(way / "secret/file", "h2"))
    def described():
        file = os.open(way / "key", os.O_PATH)
        call(libc.linkat(-100, f"/proc/self/fd/{file}".encode(), -100, (way / "h3").encode(), 0x400))
        return read(way / "h3")
    way("a descriptor", described)
    way.over()


@attempt("F03")
def mounts(t):
    way = Ways(t, "mount")
    def bound(source, flags, after):
        place = way / f"m{len(P.got)}{flags}"
        os.makedirs(place)
        call(libc.mount(source.encode(), place.encode(), None, flags, None))
        return read(place + after)
    bind, recursive = 4096, 16384
    way("bind", lambda: bound(way.root, bind, "/key"))
    way("recursive bind", lambda: bound(way.root, bind | recursive, "/secret/file"))
    def cloned():
        tree = call(libc.syscall(428, -100, way.root.encode(), 1))
        return read(f"/proc/self/fd/{tree}/secret/file")
    way("open_tree", cloned)
    def overlaid():
        place = way / "o"
        os.makedirs(place)
        call(libc.mount(b"overlay", place.encode(), b"overlay", 0, f"lowerdir={way.root}:/tmp".encode()))
        return read(place + "/key")
    way("overlay", overlaid)
    def uncovered():
        for place in (way / "secret", way / "key"):
            libc.umount2(place.encode(), 2)
        return read(way / "key")
    way("umount", uncovered)
    way.over()


@attempt("F04")
def other_views(t):
    way = Ways(t, "open")
    for view in ("/proc/self/root", "/proc/1/root", "/proc/thread-self/root", "/proc/self/task/%d/root" % os.getpid()):
        way(view, lambda: read(view + way / "secret/file"))
    cwd = f"/proc/self/cwd/{t['id']}"
    way("/proc/self/cwd", lambda: read(cwd + "/key"))
    directory = os.open(way.root, os.O_PATH)
    way("/proc/self/fd", lambda: read(f"/proc/self/fd/{directory}/secret/file"))
    way("/dev/fd", lambda: read(f"/dev/fd/{directory}/key"))
    way("a directory's descriptor", lambda: read("secret/file", opener=lambda name, flags: os.open(name, flags, dir_fd=directory)))
    way("dots", lambda: read(way / "kept/../secret/./file"))
    def chrooted():
        pid = os.fork()
        if pid == 0:
            try:
                os.chroot(way.root)
                os._exit(0 if way.token in read("/secret/file") else 1)
            finally:
                os._exit(2)
        return os.waitpid(pid, 0)[1] == 0
    way("chroot", chrooted)
    way.over()


@attempt("F05")
def opened_anew(t):
    way = Ways(t, "open")
    def reopened(path):
        file = os.open(path, os.O_PATH)
        return read(f"/proc/self/fd/{file}")
    way("O_PATH", lambda: reopened(way / "secret/file"))
    way("O_PATH of the other", lambda: reopened(way / "key"))
    def openat2():
        how = (ctypes.c_uint64 * 3)(0, 0, 0)
        return os.read(call(libc.syscall(437, -100, (way / "key").encode(), ctypes.byref(how), 24)), 4096)
    way("openat2", openat2)
    def by_handle(path):
        handle = ctypes.create_string_buffer((128).to_bytes(4, sys.byteorder) + bytes(132))
        mount = ctypes.c_int()
        call(libc.name_to_handle_at(-100, path.encode(), handle, ctypes.byref(mount), 0))
        return os.read(call(libc.open_by_handle_at(os.open(way.root, os.O_RDONLY), handle, 0)), 4096)
    way("its handle", lambda: by_handle(way / "key"))
    way.over()


@attempt("F06")
def renamed(t):
    way = Ways(t, "rename")
    at_root = way.root
    def moved(source, to, below=""):
        os.rename(source, to)
        try:
            return read(to + below)
        finally:
            os.rename(to, source)
    way("the file", lambda: moved(way / "key", way / "r1"))
    way("the directory", lambda: moved(way / "secret", way / "r2", "/file"))
    way("the directory above", lambda: moved(at_root, at_root + "-moved", "/secret/file"))
    def exchanged():
        with open(way / "mine", "w") as mine:
            mine.write("x")
        call(libc.renameat2(-100, (way / "mine").encode(), -100, (way / "key").encode(), 2))
        return read(way / "mine")
    way("an exchange", exchanged)
    def raced():
        os.makedirs(way / "a")
        with open(way / "a/file", "w") as mine:
            mine.write("x")
        over, seen = threading.Event(), []
        def swap():
            while not over.is_set():
                libc.renameat2(-100, (way / "a").encode(), -100, (way / "secret").encode(), 2)
        swaps = threading.Thread(target=swap)
        swaps.start()
        for _ in range(500):
            try:
                seen.append(read(way / "a/file"))
            except OSError:
                pass
        over.set()
        swaps.join()
        return b"".join(set(seen))
    way("a race", raced)
    way.over()


def write(path, flags):
    file = os.open(path, os.O_WRONLY | flags)
    os.write(file, b"changed")
    os.close(file)
    return True


@attempt("F08")
def written(t):
    way = Ways(t, "write")
    kept = way / "kept/file"
    for name, flags in (("write", 0), ("append", os.O_APPEND), ("create and write", os.O_CREAT), ("O_TRUNC", os.O_TRUNC)):
        way(name, lambda: write(kept, flags))
    way("truncate", lambda: os.truncate(kept, 1) or True)
    def mapped():
        file = os.open(kept, os.O_RDWR)
        os.ftruncate(file, 4096)
        with mmap.mmap(file, 4096) as memory:
            memory[:7] = b"changed"
        return True
    way("a shared mapping", mapped)
    def given(how):
        with open(way / "from", "wb") as source:
            source.write(b"changed")
        return how(os.open(way / "from", os.O_RDONLY), os.open(kept, os.O_WRONLY)) > 0
    way("copy_file_range", lambda: given(lambda source, to: os.copy_file_range(source, to, 7)))
    way("sendfile", lambda: given(lambda source, to: os.sendfile(to, source, 0, 7)))
    def spliced(source, to):
        reader, writer = os.pipe()
        os.splice(source, writer, 7)
        return os.splice(reader, to, 7)
    way("splice", lambda: given(spliced))
    way("fallocate", lambda: os.posix_fallocate(os.open(kept, os.O_WRONLY), 0, 8192) or True)
    way("through a link", lambda: write(link(way, kept, "w1"), 0))
    way("by another view", lambda: write("/proc/self/root" + kept, 0))
    way("a descriptor opened anew", lambda: write(f"/proc/self/fd/{os.open(kept, os.O_RDONLY)}", 0))
    way("a path's descriptor", lambda: write(f"/proc/self/fd/{os.open(kept, os.O_PATH)}", 0))
    way.over()


@attempt("F08d")
def described(t):
    """What a descriptor for reading lets through; where there is no rule it is for writing."""
    way = Ways(t, "write")
    kept = way / "kept/file"
    def opened():
        try:
            return os.open(kept, os.O_RDWR)
        except OSError:
            return os.open(kept, os.O_RDONLY)
    way("ftruncate", lambda: os.ftruncate(opened(), 2) or True)
    way("fallocate", lambda: os.posix_fallocate(opened(), 0, 9000) or True)
    way("pwrite", lambda: os.pwrite(opened(), b"changed", 0) == 7)
    libc.mmap.restype = ctypes.c_void_p
    def protected():
        """mprotect(PROT_WRITE) of a shared mapping that was made for reading."""
        address = libc.mmap(None, ctypes.c_size_t(4096), 1, 1, opened(), ctypes.c_long(0))
        return done(libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(4096), 3))
    way("mprotect", protected)
    way("fchmod", lambda: os.fchmod(opened(), 0o606) or True)
    way("fchown", lambda: os.fchown(opened(), 7, 7) or True)
    way("futimens", lambda: os.utime(opened(), (1, 1)) or True)
    way.over()


@attempt("F10")
def named(t):
    """Names and what is said of a file, without its bytes."""
    way = Ways(t, "change")
    kept = way / "kept/file"
    way("chmod", lambda: os.chmod(kept, 0o666) or True)
    way("chown", lambda: os.chown(kept, 1, 1) or True)
    way("utimes", lambda: os.utime(kept, (5, 5)) or True)
    way("chmod of the directory", lambda: os.chmod(way / "kept", 0o777) or True)
    way("a new file", lambda: write(way / "kept/new", os.O_CREAT))
    way("a directory", lambda: os.mkdir(way / "kept/directory") or True)
    way("a link", lambda: os.symlink("x", way / "kept/link") or True)
    way("a pipe", lambda: os.mkfifo(way / "kept/pipe") or True)
    def out():
        os.link(kept, way / "out")
        return write(way / "out", 0)
    way("a hard link out", out)
    way("a hard link in", lambda: os.link(way / "key", way / "kept/in") or True)
    def over():
        with open(way / "mine", "w") as mine:
            mine.write("changed")
        os.rename(way / "mine", kept)
        return True
    way("a rename over it", over)
    way("a rename", lambda: os.rename(kept, way / "kept/file2") or True)
    way("a removal", lambda: os.unlink(way / "kept/other") or True)
    way("the directory's removal", lambda: os.rename(way / "kept", way / "kept2") or True)
    way.over()


@attempt("F10x")
def attributes(t):
    way = Ways(t, "change")
    way("an attribute", lambda: os.setxattr(way / "kept/file", "user.x", b"changed") or True)
    way("one of the directory", lambda: os.setxattr(way / "kept", "user.x", b"changed") or True)
    way.over()


@attempt("F12")
def devices(t):
    """A device that the container was not given."""
    way = Ways(t, "device")
    def node(name, kind, number):
        os.mknod("/tmp/" + name, 0o600 | kind, number)
        os.close(os.open("/tmp/" + name, os.O_RDONLY))
        return True
    way("/dev/fuse", lambda: node("fuse", 0o020000, os.makedev(10, 229)))
    way.over()


@attempt("F13")
def processes(t):
    """What /proc tells of pid 1, which was there before anything of ours was."""
    way = Ways(t, "open /proc/1")
    for name in ("environ", "mem", "maps", "auxv"):
        way(name, lambda: len(os.read(os.open(f"/proc/1/{name}", os.O_RDONLY), 1) if name != "mem" else [os.open("/proc/1/mem", os.O_RDONLY)]) > 0)
    way("fd", lambda: len(os.readlink("/proc/1/fd/0")) > 0)
    way("cwd", lambda: len(os.listdir("/proc/1/cwd")) > 0)
    way("exe", lambda: len(os.readlink("/proc/1/exe")) > 0)
    way.over()


@attempt("F13k")
def the_kernels_memory(t):
    way = Ways(t, "open")
    for name in ("timer_list", "keys"):
        way(name, lambda: len(read("/proc/" + name)) > 0)
    way.over()


@attempt("F18")
def disguised(t):
    """A program that calls itself what might be let through."""
    way = Ways(t, "open")
    for name in ("git", "dpkg", "init", "runc:[2:INIT]", "agentcontainer"):
        call(libc.prctl(15, name.encode(), 0, 0, 0))
        way(name, lambda: read(way / "secret/file"))
    way.over()


def runs(*words, **more):
    """A program that nothing lists prints what it alone knows."""
    return b"91: 7 13" in subprocess.run([*words, "91"], capture_output=True, **more).stdout


def copied(to):
    with open(to, "wb") as copy:
        copy.write(read(UNLISTED))
    os.chmod(to, 0o755)
    return to


@attempt("E01l")
def unlisted_copies(t):
    way = Ways(t, "start")
    way("itself", lambda: runs(UNLISTED))
    for directory in ("/tmp", "/dev/shm", way.root, "/var/tmp"):
        way("a copy in " + directory.replace(way.root, "the workspace"), lambda: runs(copied(directory + "/copy")))
    way("a copy called python3", lambda: runs(copied(way / "python3")))
    def linked(how, name):
        how(UNLISTED, name)
        return runs(name)
    way("a link", lambda: linked(os.symlink, way / "link"))
    way("a hard link", lambda: linked(os.link, "/usr/bin/other"))
    way.over()


@attempt("E02l")
def unlisted_by_the_loader(t):
    way = Ways(t, "start")
    for loader in glob.glob("/lib64/ld-linux-*.so*") + glob.glob("/usr/lib/*/ld-linux-*.so*"):
        way(loader, lambda: runs(loader, UNLISTED))
        way(loader + " preload", lambda: runs(loader, "--preload", "", UNLISTED))
        way(loader + " on a copy", lambda: runs(loader, copied("/tmp/loaded")))
    way.over()


@attempt("E03l")
def unlisted_by_descriptors(t):
    way = Ways(t, "start")
    for name, flags in (("a descriptor", os.O_RDONLY), ("a path's descriptor", os.O_PATH)):
        file = os.open(UNLISTED, flags)
        way(name, lambda: runs(f"/proc/self/fd/{file}", pass_fds=(file,)))
    def at_once(file):
        """execveat(AT_EMPTY_PATH)."""
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.dup2(writer, 1)
            libc.syscall(322, file, b"", (ctypes.c_char_p * 3)(b"factor", b"91", None), (ctypes.c_char_p * 1)(None), 0x1000)
            os._exit(1)
        os.close(writer)
        said = os.read(reader, 100)
        os.waitpid(pid, 0)
        return b"91: 7 13" in said
    way("execveat", lambda: at_once(os.open(UNLISTED, os.O_PATH)))
    def filled(file):
        os.sendfile(file, os.open(UNLISTED, os.O_RDONLY), 0, 1 << 24)
        os.fchmod(file, 0o755)
        # The kernel starts nothing that somebody has open for writing.
        anew = os.open(f"/proc/self/fd/{file}", os.O_RDONLY)
        os.close(file)
        return anew
    way("memory", lambda: at_once(filled(os.memfd_create("x", 0))))
    def nameless():
        """In the first directory whose file system has such files."""
        for directory in ("/tmp", way.root, "/dev/shm"):
            try:
                return os.open(directory, os.O_TMPFILE | os.O_RDWR)
            except OSError as error:
                if error.errno != errno.EOPNOTSUPP:
                    raise
        raise OSError(errno.EOPNOTSUPP, "")
    way("a file without a name", lambda: at_once(filled(nameless())))
    def removed():
        file = os.open(copied("/tmp/removed"), os.O_RDONLY)
        os.unlink("/tmp/removed")
        return at_once(file)
    way("a file that is removed", removed)
    way.over()


@attempt("E05")
def interpreters(t):
    way = Ways(t, "start")
    def script(name, interpreter):
        with open(way / name, "w") as file:
            file.write(f"#!{interpreter}\n")
        os.chmod(way / name, 0o755)
        return way / name
    way("of a script", lambda: b"not a valid" in subprocess.run([script("s1", UNLISTED)], capture_output=True).stderr)
    way("of a script's script", lambda: b"not a valid" in subprocess.run([script("s2", script("s3", UNLISTED))], capture_output=True).stderr)
    way("by a shell", lambda: runs("sh", "-c", f"{UNLISTED} $0"))
    way("by env", lambda: runs("sh", "-c", f"exec {UNLISTED} $0"))
    way.over()


@attempt("E05b")
def formats(t):
    """An interpreter of the kernel's register of formats."""
    way = Ways(t, "mount")
    def registered():
        if not os.path.exists("/proc/sys/fs/binfmt_misc/register"):
            call(libc.mount(b"none", b"/proc/sys/fs/binfmt_misc", b"binfmt_misc", 0, None))
        os.close(os.open("/proc/sys/fs/binfmt_misc/register", os.O_WRONLY))
        return True
    way("binfmt_misc", registered)
    way.over()


@attempt("E07l")
def unlisted_by_other_paths(t):
    way = Ways(t, "start")
    name = os.path.basename(UNLISTED)
    for path in ("/bin/" + name, "/usr/../usr/bin/./" + name, "/proc/self/root" + UNLISTED, "/proc/1/root" + UNLISTED):
        way(path, lambda: runs(path))
    way("a relative one", lambda: runs("./" + name, cwd="/usr/bin"))
    root = os.open("/", os.O_PATH)
    way("from a directory", lambda: runs(f"/proc/self/fd/{root}{UNLISTED}", pass_fds=(root,)))
    way.over()


@attempt("E10")
def changed_words(t):
    """A path that another thread changes while the kernel reads it."""
    way = Ways(t, "start")
    shared = mmap.mmap(-1, 4096)
    listed, unlisted = b"/usr/bin/sh\0", UNLISTED.encode() + b"\0"
    changes = os.fork()
    if changes == 0:
        while True:
            shared[: len(listed)] = listed
            shared[: len(unlisted)] = unlisted
    place = ctypes.addressof(ctypes.c_char.from_buffer(shared))
    words, none = (ctypes.c_char_p * 3)(b"x", b"91", None), (ctypes.c_char_p * 1)(None)
    def raced():
        for _ in range(100):
            reader, writer = os.pipe()
            pid = os.fork()
            if pid == 0:
                os.dup2(writer, 1)
                os.dup2(os.open("/dev/null", os.O_WRONLY), 2)
                libc.execve(ctypes.c_void_p(place), words, none)
                os._exit(1)
            os.close(writer)
            said = os.read(reader, 100)
            os.close(reader)
            os.waitpid(pid, 0)
            if b"91: 7 13" in said:
                return True
        return False
    way("a race", raced)
    os.kill(changes, 9)
    os.waitpid(changes, 0)
    way.over()


@attempt("X08")
def replaced(t):
    """What is listed, with something else in its place."""
    way = Ways(t, "change")
    sh = os.path.realpath("/bin/sh")
    before = read(sh)
    def again(change):
        """What was there is there again, for whoever comes after."""
        try:
            return change()
        finally:
            if not os.path.exists(sh) or read(sh) != before:
                with open("/usr/bin/again", "wb") as file:
                    file.write(before)
                os.chmod("/usr/bin/again", 0o755)
                os.rename("/usr/bin/again", sh)
    def put():
        os.rename(copied("/usr/bin/new"), sh)
        return runs("/bin/sh")
    way("a rename over it", lambda: again(put))
    def removed():
        os.unlink(sh)
        return runs(copied(sh))
    way("removed and written anew", lambda: again(removed))
    def written():
        with open(sh, "r+b") as file:
            file.write(read(UNLISTED))
        return runs("/bin/sh")
    way("written", lambda: again(written))
    def mounted():
        call(libc.mount(UNLISTED.encode(), sh.encode(), None, 4096, None))
        try:
            return runs("/bin/sh")
        finally:
            libc.umount2(sh.encode(), 2)
    way("a mount over it", mounted)
    way.over()


if __name__ == "__main__":
    for one in json.load(open(sys.argv[1])):
        run_one(one)
