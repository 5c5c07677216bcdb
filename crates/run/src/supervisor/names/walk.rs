//! From a name to a file, component by component: as the kernel would, were mapped names bind mounts.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustix::fs::FileType;
use rustix::io::Errno;

use super::place::{Mounts, Named, Names, Place};

/// Links that are followed for one name.
const MOST_LINKS: u32 = 40;

/// Of openat2(2).
pub(super) mod resolve {
    pub(in super::super) const NO_XDEV: u64 = 1;
    pub(in super::super) const NO_MAGICLINKS: u64 = 2;
    pub(in super::super) const NO_SYMLINKS: u64 = 4;
    pub(in super::super) const BENEATH: u64 = 8;
    pub(in super::super) const IN_ROOT: u64 = 0x10;
    pub(in super::super) const CACHED: u64 = 0x20;
}

/// What is done about a link at the end of a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum LastLink {
    Follow,
    Keep,
}

/// What the call does with a name that nothing has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Missing {
    Fails,
    IsMade,
}

/// A name that is to be resolved.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    pub(super) name: &'a [u8],
    /// Where it begins, unless it is absolute.
    pub(super) start: Option<Place>,
    pub(super) last_link: LastLink,
    pub(super) missing: Missing,
    pub(super) resolve: u64,
    /// Process and thread that name it.
    pub(super) caller: (i32, i32),
}

/// Where a name leads.
#[derive(Debug)]
pub(super) struct Found {
    /// `None`: there is nothing of that name yet, in the folder of `entry`.
    pub(super) file: Option<Arc<Named>>,
    /// The folder and the last name in it, if that is how it was found.
    pub(super) entry: Option<(Arc<Named>, Vec<u8>)>,
    /// The name, or that of the folder if there is nothing of the name yet.
    pub(super) at: PathBuf,
}

/// What became of a name.
#[derive(Debug)]
pub(super) struct Walked {
    pub(super) found: Result<Found, Errno>,
    /// Whether the kernel, which knows nothing of mapped names, would have come elsewhere.
    pub(super) crossed: bool,
}

/// Resolves the name. Opens folders and reads links; may block as the kernel does on its way.
pub(super) fn walk(names: &Names, wanted: Wanted<'_>) -> Walked {
    let mut crossed = false;
    let found = Walk::begin(names, wanted, &mut crossed).and_then(Walk::run);
    Walked { found, crossed }
}

struct Walk<'a> {
    names: &'a Names,
    root: Place,
    /// The kernel takes every root for another mount before a name has begun there or met `..`.
    has_met_root: bool,
    here: Place,
    /// Components that are still to come, the next one last.
    rest: Vec<Vec<u8>>,
    /// The name ends with a slash.
    wants_folder: bool,
    last_link: LastLink,
    missing: Missing,
    resolve: u64,
    links: u32,
    caller: (i32, i32),
    crossed: &'a mut bool,
}

impl<'a> Walk<'a> {
    fn begin(names: &'a Names, wanted: Wanted<'_>, crossed: &'a mut bool) -> Result<Self, Errno> {
        let Wanted { name, start, last_link, missing, resolve, caller } = wanted;
        let root = || names.root().map_err(|error| errno_of(&error));
        let is_absolute = name.starts_with(b"/");
        let is_scoped = resolve & (resolve::BENEATH | resolve::IN_ROOT) != 0;
        if is_absolute && resolve & resolve::BENEATH != 0 {
            return Err(Errno::XDEV);
        }
        let (root, here) = match start {
            Some(start) if is_scoped => (start.clone(), start),
            Some(start) if !is_absolute => (root()?, start),
            _ => (root()?, root()?),
        };
        let rest = Vec::new();
        let mut walk = Self {
            names,
            root,
            has_met_root: is_absolute || is_scoped,
            here,
            rest,
            wants_folder: false,
            last_link,
            missing,
            resolve,
            links: 0,
            caller,
            crossed,
        };
        *walk.crossed = is_absolute && names.mapped_at(&walk.here.at).is_some();
        walk.push(name);
        Ok(walk)
    }

    /// The components of `name` come next.
    fn push(&mut self, name: &[u8]) {
        if self.rest.is_empty() {
            self.wants_folder |= name.ends_with(b"/");
        }
        let components = name.rsplit(|byte| *byte == b'/').filter(|component| !component.is_empty());
        self.rest.extend(components.map(<[u8]>::to_vec));
    }

    fn run(mut self) -> Result<Found, Errno> {
        let mut entry = None;
        while let Some(name) = self.rest.pop() {
            if !self.here.is_folder() {
                return Err(Errno::NOTDIR);
            }
            entry = match &name[..] {
                b"." => None,
                b".." => {
                    self.up()?;
                    None
                }
                name => match self.down(name)? {
                    Down::To(entry) => entry,
                    Down::Missing(entry) => {
                        return Ok(Found { file: None, entry: Some(entry), at: self.here.at });
                    }
                },
            };
        }
        match self.here.file {
            _ if self.wants_folder && !self.here.is_folder() => Err(Errno::NOTDIR),
            // It is there for the names below it only.
            None => Err(Errno::NOENT),
            file => Ok(Found { file, entry, at: self.here.at }),
        }
    }

    fn forbids(&self, what: u64) -> bool {
        self.resolve & what != 0
    }

    /// A mapped name is none of the mounts that the kernel knows.
    fn mounts(&self) -> Mounts {
        if self.forbids(resolve::NO_XDEV) { Mounts::Refused } else { Mounts::Crossed }
    }

    /// To the folder above.
    fn up(&mut self) -> Result<(), Errno> {
        self.has_met_root = true;
        if self.here.at == self.root.at {
            return if self.forbids(resolve::BENEATH) { Err(Errno::XDEV) } else { Ok(()) };
        }
        let above = self.here.at.parent().map(Path::to_owned);
        if let (Some(_), Some(above)) = (self.names.mapped_at(&self.here.at), &above) {
            *self.crossed = true;
            self.here = self.place_of(above)?;
            return Ok(());
        }
        let Some(here) = &self.here.file else { return Err(Errno::NOENT) };
        let file = Named::in_folder(here, b"..", self.mounts())?;
        self.here = match above {
            Some(at) if at.is_absolute() => Place { at, file: Some(Arc::new(file)) },
            _ => Place::of(file),
        };
        Ok(())
    }

    /// The folder of that name, which has no links.
    fn place_of(&self, at: &Path) -> Result<Place, Errno> {
        let mut crossed = false;
        let wanted = Wanted {
            name: at.as_os_str().as_bytes(),
            start: None,
            last_link: LastLink::Keep,
            missing: Missing::Fails,
            resolve: 0,
            caller: self.caller,
        };
        let mut walk = Walk::begin(self.names, wanted, &mut crossed)?;
        while let Some(name) = walk.rest.pop() {
            if let Down::Missing(_) = walk.down(&name)? {
                return Err(Errno::NOENT);
            }
        }
        Ok(walk.here)
    }

    /// To `name` in the folder.
    fn down(&mut self, name: &[u8]) -> Result<Down, Errno> {
        let is_last = self.rest.is_empty();
        if is_last && self.wants_folder && self.missing == Missing::IsMade {
            return Err(Errno::ISDIR);
        }
        let at = self.here.at.join(OsStr::from_bytes(name));
        if let Some(mapped) = self.names.mapped_at(&at) {
            *self.crossed = true;
            self.here = mapped;
            return Ok(Down::To(None));
        }
        let opened = match &self.here.file {
            Some(folder) => {
                self.names.in_folder(folder, name, self.mounts()).map(|file| (Arc::clone(folder), file))
            }
            None => Err(Errno::NOENT),
        };
        let (folder, file) = match opened {
            Ok(opened) => opened,
            Err(Errno::NOENT) if self.names.are_below(&at) => {
                self.here = Place { at, file: None };
                return Ok(Down::To(None));
            }
            Err(Errno::NOENT) if is_last && self.missing == Missing::IsMade => {
                let folder = self.here.file.clone().ok_or(Errno::NOENT)?;
                return Ok(Down::Missing((folder, name.to_vec())));
            }
            Err(error) => return Err(error),
        };
        let follows = !is_last || self.wants_folder || self.last_link == LastLink::Follow;
        if file.kind() == FileType::Symlink && follows {
            self.follow(&folder, name, &file)?;
            return Ok(Down::To(None));
        }
        self.here = Place { at, file: Some(Arc::new(file)) };
        Ok(Down::To(Some((folder, name.to_vec()))))
    }

    /// Goes where the link `name` in `folder` says.
    fn follow(&mut self, folder: &Named, name: &[u8], link: &Named) -> Result<(), Errno> {
        self.links += 1;
        if self.forbids(resolve::NO_SYMLINKS) || self.links > MOST_LINKS {
            return Err(Errno::LOOP);
        }
        if self.rest.is_empty() {
            may_follow(folder, link)?;
        }
        let text = match is_proc(link) {
            true => match self.text_in_proc(folder, name, link)? {
                Some(text) => text,
                None => return self.jump(folder, name),
            },
            false => link.link()?,
        };
        if text.is_empty() {
            return Err(Errno::NOENT);
        }
        if text.starts_with(b"/") {
            let root = self.root.file.as_deref().ok_or(Errno::NOENT)?;
            let leaves = || Ok::<_, Errno>(folder.mount()? != root.mount()?);
            let leaves = || Ok::<_, Errno>(!self.has_met_root || leaves()?);
            if self.forbids(resolve::BENEATH) || (self.forbids(resolve::NO_XDEV) && leaves()?) {
                return Err(Errno::XDEV);
            }
            self.here = self.root.clone();
        }
        self.push(&text);
        Ok(())
    }

    /// What a link of /proc says to the caller; `None` if it leads to a file by itself.
    fn text_in_proc(&self, folder: &Named, name: &[u8], link: &Named) -> Result<Option<Vec<u8>>, Errno> {
        use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
        let (process, thread) = self.caller;
        match name {
            b"self" => return Ok(Some(process.to_string().into_bytes())),
            b"thread-self" => return Ok(Some(format!("{process}/task/{thread}").into_bytes())),
            _ => {}
        }
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        match openat2(folder, name, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS) {
            Err(Errno::LOOP) => Ok(None),
            _ => link.link().map(Some),
        }
    }

    /// Follows a link that leads to a file by itself.
    fn jump(&mut self, folder: &Named, name: &[u8]) -> Result<(), Errno> {
        match () {
            () if self.forbids(resolve::NO_MAGICLINKS) => Err(Errno::LOOP),
            () if self.forbids(resolve::BENEATH | resolve::IN_ROOT) => Err(Errno::XDEV),
            () => {
                self.here = self.names.seen_by_programs(Named::behind_link(folder, name)?);
                Ok(())
            }
        }
    }
}

/// A step from a folder to a name in it.
enum Down {
    /// Something is there, with its entry unless links or mounts were followed.
    To(Option<(Arc<Named>, Vec<u8>)>),
    /// Nothing is.
    Missing((Arc<Named>, Vec<u8>)),
}

fn is_proc(file: &Named) -> bool {
    const PROC: u64 = 0x9fa0;
    rustix::fs::fstatfs(file).is_ok_and(|system| system.f_type as u64 == PROC)
}

/// The rule of /proc/sys/fs/protected_symlinks: in a folder of everybody where names are their makers' only links of
/// its owner and of oneself are followed.
fn may_follow(folder: &Named, link: &Named) -> Result<(), Errno> {
    static IS_RULE: OnceLock<bool> = OnceLock::new();
    const EVERYBODYS: u32 = 0o1002;
    let owner = link.stat.st_uid;
    let is_rule =
        || std::fs::read("/proc/sys/fs/protected_symlinks").is_ok_and(|text| text.trim_ascii() == b"1");
    match folder.stat.st_mode & EVERYBODYS == EVERYBODYS
        && owner != folder.stat.st_uid
        && owner != rustix::process::geteuid().as_raw()
        && *IS_RULE.get_or_init(is_rule)
    {
        true => Err(Errno::ACCESS),
        false => Ok(()),
    }
}

fn errno_of(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error)
}
