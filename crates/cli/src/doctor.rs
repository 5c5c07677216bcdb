//! `memobj doctor`: what this machine offers.

use serde::Serialize;

use crate::args::DoctorArguments;
use crate::doctor_url;
use crate::engine::{self, Facility};
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::output::put;

/// The whole report, as `--json` prints it.
#[derive(Debug, Serialize)]
struct Report {
    facilities: Vec<Facility>,
}

/// Prints the report. What is missing is not a failure: something correct is used instead.
pub(crate) fn run(arguments: &DoctorArguments, interrupt: &Interrupt) -> Result<(), Failure> {
    if let Some(url) = &arguments.url {
        let report = doctor_url::report(url, &arguments.servers, interrupt)?;
        let text = match arguments.json {
            true => serde_json::to_string_pretty(&report).expect("numbers and texts are JSON") + "\n",
            false => doctor_url::table(&report),
        };
        return put(text.as_bytes());
    }
    let report = Report { facilities: engine::doctor() };
    let text = if arguments.json { json(&report) } else { table(&report) };
    put(text.as_bytes())
}

fn json(report: &Report) -> String {
    let text = serde_json::to_string_pretty(report).expect("texts and fixed names are JSON");
    text + "\n"
}

/// One line for each facility, and below it what is used instead and the command that would fix it.
fn table(report: &Report) -> String {
    let width = |text: fn(&Facility) -> &str| report.facilities.iter().map(|f| text(f).chars().count()).max();
    let (names, states) = (width(|f| &f.name).unwrap_or(0), width(|f| f.status).unwrap_or(0));
    let mut text = String::new();
    for facility in &report.facilities {
        text += &format!("{:names$}  {:states$}  {}\n", facility.name, facility.status, facility.detail);
        let more = [("used instead", &facility.used_instead), ("fix", &facility.fix)];
        for (label, value) in more {
            if let Some(value) = value {
                text += &format!("{:names$}  {:states$}    {label}: {value}\n", "", "");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Facility, Report, json, table};

    fn report() -> Report {
        let fine = Facility {
            name: "io_uring".to_string(),
            status: "available",
            detail: "kernel 6.18".to_string(),
            used_instead: None,
            fix: None,
        };
        let missing = Facility {
            name: "uffd".to_string(),
            status: "missing",
            detail: "not permitted".to_string(),
            used_instead: Some("user mode only".to_string()),
            fix: Some("sysctl x=1".to_string()),
        };
        Report { facilities: vec![fine, missing] }
    }

    #[test]
    fn the_table_is_aligned() {
        let expected = "io_uring  available  kernel 6.18\n\
                        uffd      missing    not permitted\n\
                        \x20                      used instead: user mode only\n\
                        \x20                      fix: sysctl x=1\n";
        assert_eq!(table(&report()), expected);
        assert_eq!(table(&Report { facilities: vec![] }), "");
    }

    #[test]
    fn json_has_every_field() {
        let value: serde_json::Value = serde_json::from_str(&json(&report())).expect("it is JSON");
        assert_eq!(value["facilities"][1]["used_instead"], "user mode only");
        assert!(value["facilities"][0]["fix"].is_null());
    }
}
