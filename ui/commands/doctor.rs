//! `masternode doctor`: what is wrong with a node and its machine, where, and what to do.

use crate::cli::DoctorArgs;
use crate::commands::backup::be_polite;
use crate::commands::{Failure, Outcome, locate, output};
use masternode::config::Config;
use masternode::tools::doctor::{DoctorOrder, Report, Severity, examine};
use std::fmt::Write as _;
use std::path::Path;

/// # Errors
/// [`Failure::Refused`] with at least one error found, [`Failure::Failed`] with warnings only. The report is
/// on the standard output in any case.
pub fn execute(args: &DoctorArgs) -> Outcome {
    be_polite();
    let config_file = locate::absolute(&locate::config_file(&args.node)?)?;
    let config = locate::config(&args.node).map_err(|failure| failure.to_string());
    let data_dir = match (&config, &args.node.data_dir) {
        (Ok(Config { data_dir, .. }), _) => data_dir.clone(),
        (Err(_), Some(named)) => locate::absolute(named)?,
        (Err(_), None) => config_file.parent().unwrap_or(Path::new("/")).to_owned(),
    };
    let order = DoctorOrder {
        data_dir,
        config_file,
        config,
        scratch: args.scratch.clone().unwrap_or_else(std::env::temp_dir),
        quick: args.quick,
        deep: args.deep,
    };
    let report = examine(order);
    let (errors, warnings) = (report.count(Severity::Error), report.count(Severity::Warning));
    if args.json {
        let json = serde_json::json!({ "errors": errors, "warnings": warnings, "findings": report.findings });
        output::write(&format!("{json}\n"))?;
    } else {
        output::write(&text(&report))?;
    }
    let told = format!("{errors} errors, {warnings} warnings");
    match (errors, warnings) {
        (0, 0) => Ok(()),
        (0, _) => Err(Failure::Failed(told)),
        _ => Err(Failure::Refused(told)),
    }
}

fn text(report: &Report) -> String {
    let width = report.findings.iter().map(|finding| finding.check.len()).max().unwrap_or(0);
    let mut text = String::new();
    for finding in &report.findings {
        let (severity, check) = (finding.severity, finding.check);
        // What errors say names the place already.
        let place = if finding.what.contains(&finding.place) {
            String::new()
        } else {
            format!("{}: ", finding.place)
        };
        let _ = writeln!(text, "{severity:8} {check:width$}  {place}{}", finding.what);
        if !finding.remedy.is_empty() && finding.remedy != finding.what {
            let _ = writeln!(text, "{:8} {:width$}  -> {}", "", "", finding.remedy);
        }
    }
    text
}
