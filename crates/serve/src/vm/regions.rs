//! Regions of a machine's memory: where they are in its address space, and which bytes of the object they show.

use std::fmt;

use serde::Deserialize;

const SMALL: u64 = 4096;
const LARGE: u64 = 2 << 20;
/// One past the highest address that a process has.
const END_OF_ADDRESSES: u64 = 1 << 47;
/// Monitors have three at most: memory below and above the gap of devices, and what can be plugged in.
const MOST_REGIONS: usize = 64;

/// A region as a monitor tells of it. Fields that are not known are passed over.
#[derive(Deserialize)]
struct Told {
    base_host_virt_addr: u64,
    size: u64,
    offset: u64,
    /// Since version 1.12.
    page_size: Option<u64>,
    /// Since version 1.7. In bytes, in spite of its name.
    page_size_kib: Option<u64>,
}

/// A region.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Region {
    /// Its first address.
    pub(super) start: u64,
    /// Bytes.
    pub(super) length: u64,
    /// The byte of the object that its first address shows.
    pub(super) offset: u64,
    /// Bytes of a page of it: 4 KiB or 2 MiB.
    pub(super) page: u64,
    /// The index, among the small pages of all regions, of its first one.
    pub(super) first: usize,
}

/// The regions of one machine, by their addresses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Regions {
    regions: Vec<Region>,
    pages: usize,
}

/// Why what a monitor says of its regions is refused.
#[derive(Debug)]
#[non_exhaustive]
pub(super) enum BadRegions {
    /// It goes on.
    Incomplete,
    /// It is no list of regions.
    NotAList(String),
    /// A region is none, or does not fit.
    Region {
        /// Which of the list, from 0 on.
        index: usize,
        /// What is wrong.
        why: String,
    },
    /// There is none, or are too many.
    Count(usize),
}

impl fmt::Display for BadRegions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Incomplete => f.write_str("a list of regions that does not end"),
            Self::NotAList(why) => write!(f, "no list of regions: {why}"),
            Self::Region { index, why } => write!(f, "region {index}: {why}"),
            Self::Count(count) => write!(f, "{count} regions, not 1 to {MOST_REGIONS}"),
        }
    }
}

impl Regions {
    /// Of the text of a monitor, for an object of so many bytes.
    pub(super) fn parse(text: &[u8], object_length: u64) -> Result<Self, BadRegions> {
        let told: Vec<Told> = serde_json::from_slice(text).map_err(|error| match error.is_eof() {
            true => BadRegions::Incomplete,
            false => BadRegions::NotAList(error.to_string()),
        })?;
        if told.is_empty() || told.len() > MOST_REGIONS {
            return Err(BadRegions::Count(told.len()));
        }
        let mut regions = Vec::new();
        let mut pages = 0;
        for (index, told) in told.iter().enumerate() {
            let region =
                region_of(told, pages, object_length).map_err(|why| BadRegions::Region { index, why })?;
            pages += region.small_pages();
            regions.push(region);
        }
        regions.sort_unstable_by_key(|region| region.start);
        let overlap = regions.windows(2).position(|pair| pair[0].end() > pair[1].start);
        match overlap {
            Some(index) => Err(BadRegions::Region { index, why: "it overlaps another one".into() }),
            None => Ok(Self { regions, pages }),
        }
    }

    /// All of them, by address.
    pub(super) fn all(&self) -> &[Region] {
        &self.regions
    }

    /// How many small pages they have together.
    pub(super) fn pages(&self) -> usize {
        self.pages
    }

    /// The one that has this address.
    pub(super) fn at(&self, address: u64) -> Option<&Region> {
        let after = self.regions.partition_point(|region| region.start <= address);
        self.regions[..after].last().filter(|region| address < region.end())
    }

    /// The parts of regions within `[start, end)`.
    pub(super) fn within(&self, start: u64, end: u64) -> impl Iterator<Item = (&Region, u64, u64)> {
        self.regions
            .iter()
            .map(move |region| (region, region.start.max(start), region.end().min(end)))
            .filter(|(_, start, end)| start < end)
    }
}

impl Region {
    /// One past its last address.
    pub(super) fn end(&self) -> u64 {
        self.start + self.length
    }

    fn small_pages(&self) -> usize {
        (self.length / SMALL) as usize
    }

    /// The index of the small page at `address`, which is in it.
    pub(super) fn index_of(&self, address: u64) -> usize {
        self.first + ((address - self.start) / SMALL) as usize
    }

    /// The byte of the object at `address`, which is in it.
    pub(super) fn offset_of(&self, address: u64) -> u64 {
        self.offset + (address - self.start)
    }
}

fn region_of(told: &Told, first: usize, object_length: u64) -> Result<Region, String> {
    let page = told.page_size.or(told.page_size_kib).unwrap_or(SMALL);
    if page != SMALL && page != LARGE {
        return Err(format!("pages of {page} bytes, not {SMALL} or {LARGE}"));
    }
    let (start, length) = (told.base_host_virt_addr, told.size);
    if start == 0 || !start.is_multiple_of(page) {
        return Err(format!("the address {start:#x} is none of a page of {page} bytes"));
    }
    if length == 0 || !length.is_multiple_of(page) {
        return Err(format!("{length} bytes are no pages of {page} bytes"));
    }
    if start.checked_add(length).is_none_or(|end| end > END_OF_ADDRESSES) {
        return Err(format!("addresses from {start:#x} on that no process has"));
    }
    if !told.offset.is_multiple_of(SMALL) {
        return Err(format!("the offset {} is none of a page", told.offset));
    }
    match told.offset.checked_add(length) {
        Some(end) if end <= object_length => Ok(Region { start, length, offset: told.offset, page, first }),
        _ => Err(format!(
            "{length} bytes from {} on are not in the object, which has {object_length} bytes",
            told.offset
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Result<Regions, String> {
        Regions::parse(text.as_bytes(), 1 << 30).map_err(|why| why.to_string())
    }

    #[test]
    fn each_age_of_monitors_is_understood() {
        let sizes = ["", r#","page_size_kib":4096"#, r#","page_size":4096,"page_size_kib":4096,"later":[1]"#];
        for size in sizes {
            let text = format!(r#"[{{"base_host_virt_addr":65536,"size":8192,"offset":4096{size}}}]"#);
            let regions = one(&text).unwrap();
            let region = *regions.at(65536 + 8191).unwrap();
            assert_eq!(
                (region.page, region.offset_of(65536 + 4096), region.index_of(65536 + 4096)),
                (4096, 8192, 1)
            );
            assert!(regions.at(65535).is_none() && regions.at(65536 + 8192).is_none());
        }
        let large = r#"[{"base_host_virt_addr":4194304,"size":2097152,"offset":0,"page_size":2097152}]"#;
        assert_eq!(one(large).unwrap().all()[0].page, LARGE);
    }

    #[test]
    fn regions_come_in_any_order() {
        let text = r#"[{"base_host_virt_addr":1048576,"size":8192,"offset":0},
            {"base_host_virt_addr":65536,"size":4096,"offset":8192}]"#;
        let regions = one(text).unwrap();
        assert_eq!(regions.pages(), 3);
        assert_eq!(regions.at(65536).unwrap().index_of(65536), 2);
        let parts: Vec<_> = regions.within(0, 1048576 + 4096).map(|(_, start, end)| end - start).collect();
        assert_eq!(parts, [4096, 4096]);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let region = |fields: &str| one(&format!("[{{{fields}}}]")).unwrap_err();
        let bad = [
            (r#""base_host_virt_addr":65536,"size":8192,"offset":0,"page_size":8192"#, "pages of 8192"),
            (r#""base_host_virt_addr":65537,"size":8192,"offset":0"#, "the address 0x10001"),
            (r#""base_host_virt_addr":0,"size":8192,"offset":0"#, "the address 0x0"),
            (r#""base_host_virt_addr":65536,"size":0,"offset":0"#, "0 bytes are no pages"),
            (r#""base_host_virt_addr":65536,"size":5000,"offset":0"#, "5000 bytes are no pages"),
            (r#""base_host_virt_addr":18446744073709547520,"size":8192,"offset":0"#, "no process has"),
            (r#""base_host_virt_addr":65536,"size":8192,"offset":5"#, "the offset 5"),
            (r#""base_host_virt_addr":65536,"size":8192,"offset":1073741824"#, "not in the object"),
            (r#""base_host_virt_addr":65536,"size":8192,"offset":18446744073709547520"#, "not in the object"),
            (r#""base_host_virt_addr":-1,"size":8192,"offset":0"#, "no list of regions"),
        ];
        for (fields, why) in bad {
            let said = region(fields);
            assert!(said.contains(why), "{fields}: {said}");
        }
        let two = |second: u64| {
            one(&format!(
                r#"[{{"base_host_virt_addr":65536,"size":8192,"offset":0}},{{"base_host_virt_addr":{second},"size":8192,"offset":0}}]"#
            ))
        };
        assert!(two(65536 + 4096).unwrap_err().contains("overlaps") && two(65536 + 8192).is_ok());
        for text in ["", "[", r#"[{"base_host_virt_addr":65"#] {
            assert!(matches!(Regions::parse(text.as_bytes(), 1), Err(BadRegions::Incomplete)), "{text}");
        }
        for text in ["{}", "[1]", "hello", "[] x"] {
            assert!(matches!(Regions::parse(text.as_bytes(), 1), Err(BadRegions::NotAList(_))), "{text}");
        }
        assert!(matches!(Regions::parse(b"[]", 1), Err(BadRegions::Count(0))));
    }

    /// Any text is a list of regions within the object, or is refused.
    #[test]
    fn whatever_a_monitor_says_is_within_the_object_or_refused() {
        let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let seed = std::env::var("MEMOBJ_SEED").ok().and_then(|seed| seed.parse().ok());
        let mut state: u64 = seed.unwrap_or(time.subsec_nanos().into());
        println!("MEMOBJ_SEED={state}");
        let mut random = |bound: usize| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as usize % bound
        };
        let numbers = [
            "0",
            "4096",
            "8192",
            "2097152",
            "1073741824",
            "140737488355328",
            "18446744073709551615",
            "-1",
            "1e3",
        ];
        let names = ["base_host_virt_addr", "size", "offset", "page_size", "page_size_kib", "other"];
        for _ in 0..50_000 {
            let mut text = String::from("[");
            for region in 0..random(4) {
                text.push_str(if region > 0 { ",{" } else { "{" });
                for field in 0..random(7) {
                    let (name, number) = (names[random(names.len())], numbers[random(numbers.len())]);
                    text.push_str(&format!("{}\"{name}\":{number}", if field > 0 { "," } else { "" }));
                }
                text.push('}');
            }
            text.push(']');
            let mut bytes = text.into_bytes();
            for _ in 0..random(3) {
                let at = random(bytes.len());
                bytes[at] = random(256) as u8;
            }
            let Ok(regions) = Regions::parse(&bytes, 1 << 30) else { continue };
            for region in regions.all() {
                assert!(region.offset + region.length <= 1 << 30 && region.end() <= END_OF_ADDRESSES);
                assert!(region.index_of(region.end() - SMALL) < regions.pages());
            }
        }
    }
}
