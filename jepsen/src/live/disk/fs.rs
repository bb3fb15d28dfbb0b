//! The disk as the kernel sees it.

use std::{
    ffi::OsStr,
    io,
    sync::Arc,
    time::{Duration, SystemTime},
};

use fuser::{
    AccessFlags, BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow,
    WriteFlags,
};

use super::{
    image::Image,
    names::{Ino, ROOT},
    syncs::Syncs,
};

/// The kernel asks each time: a power loss changes everything behind its back.
const TTL: Duration = Duration::ZERO;
/// Bytes of a block, as far as anybody asks.
const BLOCK_BYTES: u32 = 4096;
/// Size of the disk.
const DISK_BYTES: u64 = 16 << 30;
/// Longest name.
const NAME_BYTES: u32 = 255;
/// `FALLOC_FL_KEEP_SIZE`: space is set aside, the length stays.
const KEEP_SIZE: i32 = 1;

/// Passes what the kernel asks on to the image.
#[derive(Debug)]
pub(super) struct Fs {
    pub(super) syncs: Arc<Syncs>,
}

impl Fs {
    fn image<T>(&self, work: impl FnOnce(&mut Image) -> T) -> T {
        self.syncs.with(|state| work(&mut state.image))
    }

    fn entry(&self, reply: ReplyEntry, found: impl FnOnce(&mut Image) -> io::Result<Ino>) {
        let attr = self.image(|image| found(image).and_then(|ino| attr(image, ino)));
        match attr {
            Ok(attr) => reply.entry(&TTL, &attr, Generation(0)),
            Err(error) => reply.error(errno(&error)),
        }
    }
}

/// What the kernel is told of an error.
pub(super) fn errno(error: &io::Error) -> Errno {
    match error.kind() {
        io::ErrorKind::NotFound => Errno::ENOENT,
        io::ErrorKind::AlreadyExists => Errno::EEXIST,
        io::ErrorKind::NotADirectory => Errno::ENOTDIR,
        io::ErrorKind::IsADirectory => Errno::EISDIR,
        io::ErrorKind::DirectoryNotEmpty => Errno::ENOTEMPTY,
        io::ErrorKind::StorageFull => Errno::ENOSPC,
        _ => Errno::EIO,
    }
}

fn done(reply: ReplyEmpty, done: io::Result<()>) {
    match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(&error)),
    }
}

fn attr(image: &Image, ino: Ino) -> io::Result<FileAttr> {
    let is_folder = image.names.is_folder(ino);
    let size = if is_folder { 0 } else { image.file(ino)?.len() };
    Ok(FileAttr {
        ino: INodeNo(ino),
        size,
        blocks: size.div_ceil(512),
        atime: SystemTime::UNIX_EPOCH,
        mtime: SystemTime::UNIX_EPOCH,
        ctime: SystemTime::UNIX_EPOCH,
        crtime: SystemTime::UNIX_EPOCH,
        kind: if is_folder {
            FileType::Directory
        } else {
            FileType::RegularFile
        },
        perm: if is_folder { 0o755 } else { 0o644 },
        nlink: if is_folder { 2 } else { 1 },
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        rdev: 0,
        blksize: BLOCK_BYTES,
        flags: 0,
    })
}

impl Filesystem for Fs {
    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.entry(reply, |image| {
            let found = image.names.get(parent.0, name);
            found.ok_or_else(|| io::ErrorKind::NotFound.into())
        });
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match self.image(|image| attr(image, ino.0)) {
            Ok(attr) => reply.attr(&TTL, &attr),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn setattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let changed = self.image(|image| {
            if let Some(len) = size {
                image.set_len(ino.0, len)?;
            }
            attr(image, ino.0)
        });
        match changed {
            Ok(attr) => reply.attr(&TTL, &attr),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn mkdir(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        self.entry(reply, |image| image.make_folder(parent.0, name));
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        done(
            reply,
            self.image(|image| image.remove(parent.0, name, false)),
        );
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        done(
            reply,
            self.image(|image| image.remove(parent.0, name, true)),
        );
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if !flags.is_empty() {
            reply.error(Errno::EINVAL);
            return;
        }
        let (from, to) = ((parent.0, name), (newparent.0, newname));
        done(reply, self.image(|image| image.rename(from, to)));
    }

    fn open(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        self.image(|image| image.open(ino.0));
        // Without the kernel's cache every write is seen here when it is made.
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn create(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let created = self.image(|image| {
            let ino = image.create(parent.0, name)?;
            image.open(ino);
            attr(image, ino)
        });
        match created {
            Ok(attr) => {
                let direct = FopenFlags::FOPEN_DIRECT_IO;
                reply.created(&TTL, &attr, Generation(0), FileHandle(0), direct);
            }
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        match self.image(|image| image.file(ino.0)?.read(offset, size)) {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.image(|image| image.write(ino.0, offset, data)) {
            Ok(()) => reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX)),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn flush(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn release(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        done(reply, self.image(|image| image.release(ino.0)));
    }

    fn fsync(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        self.syncs.sync(ino.0, reply);
    }

    fn fsyncdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        self.syncs.sync(ino.0, reply);
    }

    fn readdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let entries = self.image(|image| {
            let names = image.names.list(ino.0)?;
            let entry = |(name, &ino): (&std::ffi::OsString, &Ino)| {
                let kind = if image.names.is_folder(ino) {
                    FileType::Directory
                } else {
                    FileType::RegularFile
                };
                (INodeNo(ino), kind, name.clone())
            };
            let dot = |name: &str| (ino, FileType::Directory, name.into());
            let mut entries = vec![dot("."), dot("..")];
            entries.extend(names.iter().map(entry));
            Some(entries)
        });
        let Some(entries) = entries else {
            reply.error(Errno::ENOTDIR);
            return;
        };
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        for (next, (ino, kind, name)) in (1..).zip(entries).skip(from) {
            if reply.add(ino, next, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn fallocate(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        if mode != KEEP_SIZE {
            return reply.error(Errno::EOPNOTSUPP);
        }
        match self.image(|image| image.reserve(ino.0, offset.saturating_add(length))) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let (used, full) = self.image(|image| (image.used_bytes(), image.free_bytes()));
        let block = u64::from(BLOCK_BYTES);
        let free = full.unwrap_or_else(|| DISK_BYTES.saturating_sub(used)) / block;
        reply.statfs(
            DISK_BYTES / block,
            free,
            free,
            0,
            0,
            BLOCK_BYTES,
            NAME_BYTES,
            BLOCK_BYTES,
        );
    }

    fn access(&self, _req: &Request, ino: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        let known = ino.0 == ROOT || self.image(|image| attr(image, ino.0).is_ok());
        if known {
            reply.ok();
        } else {
            reply.error(Errno::ENOENT);
        }
    }
}
