//! Who is mapped where something else was to be, for errors that name it.

use std::fmt;
use std::ops::Range;

/// A line of `/proc/self/maps`: what is mapped at some addresses of this process.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Neighbour {
    /// Its addresses.
    pub range: Range<usize>,
    /// What may be done with its bytes, as the kernel writes it: `r-xp`.
    pub permissions: String,
    /// The file, or what the kernel calls it (`[heap]`); empty for anonymous memory.
    pub name: String,
}

impl Neighbour {
    /// One line of `/proc/self/maps`; `None` if it is none.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        // Addresses, permissions, offset, device, inode; then spaces, and a name that may have spaces.
        let mut rest = line;
        let mut next = || {
            let (field, after) = rest.split_once(' ').unwrap_or((rest, ""));
            rest = after;
            field
        };
        let (addresses, permissions) = (next(), next());
        for _ in 0..3 {
            next();
        }
        let (start, end) = addresses.split_once('-')?;
        let number = |text| usize::from_str_radix(text, 16).ok();
        let range = number(start)?..number(end)?;
        Some(Self { range, permissions: permissions.to_owned(), name: rest.trim_start().to_owned() })
    }
}

impl fmt::Display for Neighbour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Range { start, end } = self.range;
        let name = if self.name.is_empty() { "anonymous memory" } else { &self.name };
        write!(f, "{name} at [{start:#x}, {end:#x}) {}", self.permissions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_kernel_become_neighbours() {
        let file = "7f1e2c000000-7f1e2c021000 r-xp 00001000 fd:01 131097                     /opt/a b/lib.so (deleted)";
        let file = Neighbour::parse(file).unwrap();
        assert_eq!(file.range, 0x7f1e_2c00_0000..0x7f1e_2c02_1000);
        assert_eq!((&*file.permissions, &*file.name), ("r-xp", "/opt/a b/lib.so (deleted)"));

        let anonymous = Neighbour::parse("10000-20000 rw-p 00000000 00:00 0 ").unwrap();
        assert_eq!(anonymous.to_string(), "anonymous memory at [0x10000, 0x20000) rw-p");
        assert_eq!(Neighbour::parse(""), None);
        assert_eq!(Neighbour::parse("x-y rw-p 0 0 0"), None);
    }
}
