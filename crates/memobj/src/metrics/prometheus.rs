//! Metrics as Prometheus reads them: the text format, version 0.0.4.

use std::fmt::Write;

use super::Metrics;

/// What a number does.
#[derive(Clone, Copy)]
enum Kind {
    /// It only grows.
    Counter,
    /// It is what it is now.
    Gauge,
}

impl Metrics {
    /// All numbers in the text format of Prometheus, with the label `cache`, to be sent as `text/plain; version=0.0.4`.
    ///
    /// ```
    /// # use memobj::{Cache, CacheOptions};
    /// let cache = Cache::new(CacheOptions::new().budget_bytes(1 << 20))?;
    /// let text = cache.metrics().to_prometheus("main");
    /// assert!(text.contains("# TYPE memobj_budget_bytes gauge\nmemobj_budget_bytes{cache=\"main\"} 1048576\n"));
    /// # Ok::<(), memobj::CacheError>(())
    /// ```
    pub fn to_prometheus(&self, cache: &str) -> String {
        let cache = cache.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let mut text = String::new();
        for (name, kind, value) in self.numbers() {
            // As the format has it, a counter says so in its name.
            let (kind, total) = match kind {
                Kind::Counter => ("counter", "_total"),
                Kind::Gauge => ("gauge", ""),
            };
            // A string takes all that is written to it.
            let _ = writeln!(text, "# TYPE memobj_{name}{total} {kind}");
            let _ = writeln!(text, "memobj_{name}{total}{{cache=\"{cache}\"}} {value}");
        }
        text
    }

    fn numbers(&self) -> [(&'static str, Kind, u64); 28] {
        use Kind::{Counter, Gauge};
        [
            ("faults", Counter, self.faults),
            ("supplied_pages", Counter, self.supplied_pages),
            ("read_ahead_pages", Counter, self.read_ahead_pages),
            ("prefetched_pages", Counter, self.prefetched_pages),
            ("evicted_pages", Counter, self.evicted_pages),
            ("retries", Counter, self.retries),
            ("failed_pages", Counter, self.failed_pages),
            ("frame_bytes", Gauge, self.frame_bytes),
            ("peak_frame_bytes", Gauge, self.peak_frame_bytes),
            ("budget_bytes", Gauge, self.budget_bytes),
            ("pinned_bytes", Gauge, self.pinned_bytes),
            ("table_bytes", Gauge, self.table_bytes),
            ("read_bytes", Counter, self.read_bytes),
            ("dirty_bytes", Gauge, self.dirty_bytes),
            ("written_pages", Counter, self.written_pages),
            ("written_bytes", Counter, self.written_bytes),
            ("checkpoints", Counter, self.checkpoints),
            ("checkpoint_ns", Counter, self.checkpoint_ns),
            ("longest_commit_beside_checkpoint_ns", Gauge, self.longest_commit_beside_checkpoint_ns),
            ("fault_loop_clients", Gauge, self.fault_loop.clients as u64),
            ("fault_loop_parked", Gauge, self.fault_loop.parked as u64),
            ("fault_loop_threads", Gauge, self.fault_loop.threads as u64),
            ("fault_loop_events", Counter, self.fault_loop.events),
            ("fault_loop_held_back", Counter, self.fault_loop.held_back),
            ("fault_loop_calls_held_up", Counter, self.fault_loop.calls_held_up),
            ("fault_loop_dropped", Counter, self.fault_loop.dropped),
            ("sweeps", Counter, self.sweeps),
            ("dropped_events", Counter, self.dropped_events),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_there_once_under_its_name() {
        // As `Debug` has them, so that none is forgotten.
        let known = format!("{:?}", Metrics::default());
        // Of the event loop there are several, under the name of its field.
        let fields = known.matches(':').count() - known.matches("fault_loop: ").count();
        let metrics = Metrics::default();
        assert_eq!(metrics.numbers().len(), fields);
        for (name, ..) in metrics.numbers() {
            let field = name.strip_prefix("fault_loop_").unwrap_or(name);
            assert!(known.contains(&format!(" {field}: ")), "{name}");
        }
    }

    #[test]
    fn labels_are_quoted_as_the_format_wants() {
        let text = Metrics { faults: 7, ..Metrics::default() }.to_prometheus("a \"b\" \\ c\nd");
        let line = text.lines().nth(1).unwrap();
        assert_eq!(line, r#"memobj_faults_total{cache="a \"b\" \\ c\nd"} 7"#);
    }
}
