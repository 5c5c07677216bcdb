//! Histories as text, to be kept and played again.

use memobj_linux::oracle::{Detail, Order, Process};
use std::fmt;

/// Orders for a window of so many pages.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct History {
    /// Pages of the window.
    pub pages: u64,
    /// Who does what.
    pub orders: Vec<(Process, Order)>,
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "pages {}", self.pages)?;
        for &(process, order) in &self.orders {
            let (name, numbers) = words(order);
            write!(f, "{process} {name}")?;
            for number in numbers {
                write!(f, " {number:#x}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// The history that `text` prints as; `None` if it is none.
pub fn parse(text: &str) -> Option<History> {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let pages = lines.next()?.strip_prefix("pages ")?.parse().ok()?;
    let orders = lines.map(parse_line).collect::<Option<Vec<_>>>()?;
    Some(History { pages, orders })
}

fn parse_line(line: &str) -> Option<(Process, Order)> {
    let mut words = line.split_whitespace();
    let process = words.next()?.parse().ok()?;
    let name = words.next()?;
    let number = |word: &str| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok();
    let numbers = words.map(number).collect::<Option<Vec<u64>>>()?;
    Some((process, order(name, &numbers)?))
}

fn words(order: Order) -> (&'static str, Vec<u64>) {
    match order {
        Order::Mmap { address, length, prot, flags, file, offset } => {
            ("mmap", vec![address, length, prot.into(), flags.into(), file as u64, offset])
        }
        Order::Munmap { address, length } => ("munmap", vec![address, length]),
        Order::Mprotect { address, length, prot } => ("mprotect", vec![address, length, prot.into()]),
        Order::Mremap { address, old, new, flags, to } => {
            ("mremap", vec![address, old, new, flags.into(), to])
        }
        Order::Madvise { address, length, advice } => ("madvise", vec![address, length, advice as u64]),
        Order::Mlock { address, length, flags } => ("mlock", vec![address, length, flags.into()]),
        Order::Munlock { address, length } => ("munlock", vec![address, length]),
        Order::Msync { address, length, flags } => ("msync", vec![address, length, flags as u64]),
        Order::Load { address } => ("load", vec![address]),
        Order::Store { address, byte } => ("store", vec![address, byte.into()]),
        Order::Execute { address } => ("execute", vec![address]),
        Order::CopyOut { address, length } => ("copy-out", vec![address, length]),
        Order::CopyIn { address, length, byte } => ("copy-in", vec![address, length, byte.into()]),
        Order::Pwrite { file, offset, length, byte } => {
            ("pwrite", vec![file as u64, offset, length, byte.into()])
        }
        Order::Pread { file, offset, length } => ("pread", vec![file as u64, offset, length]),
        Order::Truncate { file, length } => ("truncate", vec![file as u64, length]),
        Order::Punch { file, offset, length } => ("punch", vec![file as u64, offset, length]),
        Order::Digest => ("digest", vec![]),
        Order::Table { detail: Detail::Lines } => ("table", vec![]),
        Order::Table { detail: Detail::Flags } => ("flags", vec![]),
        Order::Fork => ("fork", vec![]),
        Order::Exit => ("exit", vec![]),
    }
}

fn order(name: &str, numbers: &[u64]) -> Option<Order> {
    Some(match (name, numbers) {
        ("mmap", &[address, length, prot, flags, file, offset]) => {
            Order::Mmap { address, length, prot: prot as u32, flags: flags as u32, file: file as i32, offset }
        }
        ("munmap", &[address, length]) => Order::Munmap { address, length },
        ("mprotect", &[address, length, prot]) => Order::Mprotect { address, length, prot: prot as u32 },
        ("mremap", &[address, old, new, flags, to]) => {
            Order::Mremap { address, old, new, flags: flags as u32, to }
        }
        ("madvise", &[address, length, advice]) => Order::Madvise { address, length, advice: advice as i32 },
        ("mlock", &[address, length, flags]) => Order::Mlock { address, length, flags: flags as u32 },
        ("munlock", &[address, length]) => Order::Munlock { address, length },
        ("msync", &[address, length, flags]) => Order::Msync { address, length, flags: flags as i32 },
        ("load", &[address]) => Order::Load { address },
        ("store", &[address, byte]) => Order::Store { address, byte: byte as u8 },
        ("execute", &[address]) => Order::Execute { address },
        ("copy-out", &[address, length]) => Order::CopyOut { address, length },
        ("copy-in", &[address, length, byte]) => Order::CopyIn { address, length, byte: byte as u8 },
        ("pwrite", &[file, offset, length, byte]) => {
            Order::Pwrite { file: file as i32, offset, length, byte: byte as u8 }
        }
        ("pread", &[file, offset, length]) => Order::Pread { file: file as i32, offset, length },
        ("truncate", &[file, length]) => Order::Truncate { file: file as i32, length },
        ("punch", &[file, offset, length]) => Order::Punch { file: file as i32, offset, length },
        ("digest", &[]) => Order::Digest,
        ("table", &[]) => Order::Table { detail: Detail::Lines },
        ("flags", &[]) => Order::Table { detail: Detail::Flags },
        ("fork", &[]) => Order::Fork,
        ("exit", &[]) => Order::Exit,
        _ => return None,
    })
}
