//! The machine: disk, clock, port, limits.

use super::{Node, Patient, Report, Severity};
use crate::node::clock::wall_ms;
use crate::node::host_info::disk_free_bytes;
use crate::telemetry::clock::ClockFault;
use std::net::UdpSocket;

/// Open files below which a busy node may run out: its connections, logs and database.
const OPEN_FILES_MIN: u64 = 1024;

pub(super) fn disk(patient: &Patient, report: &mut Report) {
    let (dir, storage) = (patient.dir().display(), &patient.config.storage);
    let Some(free) = disk_free_bytes(patient.dir()) else {
        report.add("disk", Severity::Skipped, dir, "the system does not tell how much is free");
        return;
    };
    let mib = free >> 20;
    let remedy = "free space, or move the data directory to a larger disk";
    if free < storage.free_stop_bytes {
        let what = format!("{mib} MiB free, below {} a node stops", storage.free_stop_bytes >> 20);
        report.fault("disk", Severity::Error, dir, what, remedy);
    } else if free < storage.free_vote_bytes {
        let what = format!("{mib} MiB free, below {} nothing is voted", storage.free_vote_bytes >> 20);
        report.fault("disk", Severity::Error, dir, what, remedy);
    } else if free < storage.free_warn_bytes {
        let what = format!("{mib} MiB free, votes end below {}", storage.free_vote_bytes >> 20);
        report.fault("disk", Severity::Warning, dir, what, remedy);
    } else {
        report.ok("disk", dir, format!("{mib} MiB free"));
    }
    if let Ok(stat) = rustix::fs::statvfs(patient.dir())
        && stat.f_files > 0
        && stat.f_favail < 100
    {
        let what = format!("room for {} more files only", stat.f_favail);
        report.fault(
            "disk",
            Severity::Error,
            patient.dir().display(),
            what,
            "delete small files on this disk",
        );
    }
}

pub(super) fn open_files(report: &mut Report) {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    match limit {
        Some(limit) if limit < OPEN_FILES_MIN => report.fault(
            "open-files",
            Severity::Warning,
            "ulimit -n",
            format!("a process may open {limit} files, a node wants {OPEN_FILES_MIN}"),
            "raise it for the user of the node: LimitNOFILE in a service file, or limits.conf",
        ),
        Some(limit) => report.ok("open-files", "ulimit -n", format!("{limit}")),
        None => report.ok("open-files", "ulimit -n", "unlimited"),
    }
}

pub(super) fn port(patient: &Patient, report: &mut Report) {
    let listen = patient.config.p2p.listen;
    let place = format!("udp {listen}");
    match &patient.node {
        Node::Running(node) => {
            report.ok("port", &place, format!("the node listens at {}", node.snapshot.node.p2p_address));
            match &node.snapshot.peers.reach {
                None => report.add("reachable", Severity::Skipped, place, "no peer has dialled back yet"),
                Some(reach) if reach.is_doubtful() => {
                    let (own, severity) = match node.snapshot.node.voter {
                        Some(_) if reach.is_closed() => ("the others dial a masternode", Severity::Warning),
                        _ => ("an observer does well without", Severity::Note),
                    };
                    let remedy =
                        format!("{own}: forward the port or open the firewall, then set p2p.advertise");
                    report.fault("reachable", severity, place, reach.to_string(), remedy);
                }
                Some(reach) => report.ok("reachable", place, reach.to_string()),
            }
        }
        Node::Silent(_) => report.add("port", Severity::Skipped, place, "another process runs here"),
        Node::Stopped if patient.order.config.is_err() => {
            report.add("port", Severity::Skipped, place, "the configuration does not say which one");
        }
        // Let go of at once.
        Node::Stopped => match UdpSocket::bind(listen) {
            Ok(_) => report.ok("port", place, "free"),
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => report.fault(
                "port",
                Severity::Error,
                place,
                "another process uses it",
                format!("find it with `ss -ulpn sport = :{}`, stop it, or set p2p.listen", listen.port()),
            ),
            Err(error) => report.fault(
                "port",
                Severity::Error,
                place,
                error.to_string(),
                "set p2p.listen to an address of this machine and a port this user may use",
            ),
        },
    }
}

pub(super) fn clock(patient: &Patient, report: &mut Report) {
    const PLACE: &str = "this machine";
    let remedy = "let the system keep its clock: `timedatectl set-ntp true`";
    let Node::Running(node) = &patient.node else {
        let what = "not compared: that takes the peers of a running node";
        report.add("clock", Severity::Skipped, PLACE, what);
        return;
    };
    let block_ms = node.snapshot.chain.block_time_ms;
    let now_ms = wall_ms();
    if now_ms.saturating_add(60_000) < block_ms {
        let what = format!("{} s behind the last block", block_ms.saturating_sub(now_ms) / 1000);
        report.fault("clock", Severity::Error, PLACE, what, remedy);
        return;
    }
    let clock = &node.snapshot.host.clock;
    let median = |offset_ms| format!("{offset_ms:+} ms against the median of {} peers", clock.compared);
    match (&clock.fault, clock.offset_ms) {
        (Some(fault @ ClockFault::Own { .. }), _) => {
            report.fault("clock", Severity::Warning, PLACE, fault.to_string(), remedy);
        }
        (Some(fault), _) => report.add("clock", Severity::Note, PLACE, fault.to_string()),
        (None, None) => {
            report.add("clock", Severity::Skipped, PLACE, "not compared: no peer has told its time yet");
        }
        (None, Some(offset_ms)) => report.ok("clock", PLACE, median(offset_ms)),
    }
    if let Some(standstill) = node.snapshot.host.standstill {
        let why =
            if standstill.suspended { "the machine was suspended" } else { "it was stopped or starved" };
        let ago_s = now_ms.saturating_sub(standstill.time_ms) / 1000;
        let what =
            format!("the node stood still for {} s, {ago_s} s ago: {why}", standstill.lasted_ms / 1000);
        report.add("standstill", Severity::Note, PLACE, what);
    }
}
