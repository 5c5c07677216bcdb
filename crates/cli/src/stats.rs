//! The output of `--stats json`.

use std::io::{self, Write, stderr};
use std::time::Instant;

use serde::Serialize;

use crate::engine::{Counters, Engine};
use crate::failure::Failure;
use crate::options::StatsFormat;
use crate::output;

/// The counters of the cache, and how long it all took.
#[derive(Debug, Serialize)]
struct Stats {
    #[serde(flatten)]
    counters: Counters,
    seconds: f64,
}

/// Prints the statistics of everything `engine` did since `begin`, if they were asked for. `result` is how that went;
/// statistics that cannot be written are a failure of work that has none of its own.
pub(crate) fn print(
    result: Result<(), Failure>,
    format: Option<StatsFormat>,
    engine: &Engine,
    begin: Instant,
) -> Result<(), Failure> {
    engine.settle();
    let Some(StatsFormat::Json) = format else { return result };
    let failed = |error: io::Error| Failure::io("write standard error", &error);
    let written = writeln!(stderr(), "{}", json(engine.counters(), begin.elapsed().as_secs_f64()));
    result.and(output::check_error()).and(written.map_err(failed))
}

fn json(counters: Counters, seconds: f64) -> String {
    serde_json::to_string(&Stats { counters, seconds }).expect("numbers and fixed names are JSON")
}

#[cfg(test)]
mod tests {
    use super::json;
    use crate::engine::Counters;

    #[test]
    fn the_names_are_the_documented_ones() {
        let counters = Counters { faults: 3, budget_bytes: 8192, ..Counters::default() };
        let expected = "{\"faults\":3,\"supplied_pages\":0,\"evicted_pages\":0,\"retries\":0,\"failed_pages\":0,\
                        \"peak_frame_bytes\":0,\"budget_bytes\":8192,\"read_bytes\":0,\"written_bytes\":0,\
                        \"seconds\":0.5}";
        assert_eq!(json(counters, 0.5), expected);
    }
}
