//! Which contestants meet on which objects.

use super::job::Part;
use super::options::ScaleOptions;

/// What all others are compared with.
pub const BASELINE: &str = "mmap";

const ACCESS: &[&str] = &["mmap", "ours-pin", "ours-touch", "ours-pin-computed", "ours-touch-computed"];
const OBJECTS: &[&str] = &["mmap", "ours-file", "ours-computed"];

/// Bytes of each of many objects.
pub const SMALL_OBJECT_BYTES: u64 = 1 << 20;

/// Contestants that are measured in turns, on objects of one length.
#[derive(Clone, Debug)]
pub struct Group {
    /// The part.
    pub part: Part,
    /// Bytes of the object, or of each.
    pub object_bytes: u64,
    /// Accesses, or objects.
    pub count: u64,
    /// Who.
    pub contestants: Vec<&'static str>,
}

fn contestants(part: Part) -> &'static [&'static str] {
    match part {
        Part::Access => ACCESS,
        Part::Objects => OBJECTS,
    }
}

/// Complains about a name that no part knows.
pub fn check_names(names: &[String]) -> Result<(), String> {
    let is_known = |name: &str| Part::ALL.into_iter().any(|part| contestants(part).contains(&name));
    match names.iter().find(|name| !is_known(name)) {
        Some(name) => Err(format!("no contestant {name:?}")),
        None => Ok(()),
    }
}

/// The groups of a run, in the order of the report.
pub fn groups(options: &ScaleOptions) -> Vec<Group> {
    let wanted = |part: &Part| options.only.is_empty() || options.only.contains(part);
    let group = |part: Part, object_bytes: u64, count: u64| Group {
        part,
        object_bytes,
        count,
        contestants: wanted_contestants(part, options),
    };
    let groups_of = |part: Part| match part {
        Part::Access => options.sizes.iter().map(|&size| group(part, size, options.accesses)).collect(),
        Part::Objects => vec![group(part, SMALL_OBJECT_BYTES, options.objects)],
    };
    Part::ALL.into_iter().filter(wanted).flat_map(groups_of).collect()
}

fn wanted_contestants(part: Part, options: &ScaleOptions) -> Vec<&'static str> {
    let in_build = |name: &&str| cfg!(feature = "ours") || !name.starts_with("ours-");
    let wanted = |name: &&str| {
        **name == *BASELINE
            || options.contestants.is_empty()
            || options.contestants.iter().any(|want| want == *name)
    };
    contestants(part).iter().copied().filter(|name| in_build(name) && wanted(name)).collect()
}
