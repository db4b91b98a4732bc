//! Removes everything of an instance: its changes of the host, its TUN device, its sessions.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::error::RunError;
use crate::config::Config;
use crate::{host, io, state};

/// Stops an instance if it runs, and removes everything. Returns what was done, in sentences.
///
/// # Errors
/// The instance does not stop, or something cannot be removed.
pub(crate) fn down(config: &Config) -> Result<Vec<String>, RunError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|source| {
            RunError::System { doing: "removing what an instance has set", source }
        })?;
    let mut done = Vec::new();
    if let Some(pid) = host::running_owner(config)? {
        stop(pid)?;
        done.push(format!("stopped the process {pid}"));
    }
    if runtime.block_on(host::restore_after_dead(config, false))? {
        done.push("removed the changes of the host".to_owned());
    }
    if host::remove_left_filter(config)? {
        done.push("removed the filter of private addresses".to_owned());
    }
    // Before the device, because the keeper in the directory holds it.
    if state::remove(&config.state.directory, &config.name)? {
        done.push("removed the sessions".to_owned());
    }
    if remove_tun(config)? {
        done.push(format!("removed the TUN device {}", config.tun.name));
    }
    Ok(done)
}

/// Removes the sessions and the TUN device that a process with `state.keep` has left for one
/// without.
///
/// # Errors
/// Something cannot be removed, or a process uses it.
pub(super) fn remove_left_sessions(config: &Config) -> Result<(), RunError> {
    if state::remove(&config.state.directory, &config.name)? {
        remove_tun(config)?;
        tracing::warn!(
            "the sessions of the process before this one have ended: `state.keep` is false now"
        );
    }
    Ok(())
}

/// Removes the TUN device. Returns false if there is none.
fn remove_tun(config: &Config) -> Result<bool, RunError> {
    let name = &config.tun.name;
    io::remove(name).map_err(|source| RunError::Tun { name: name.clone(), source })
}

/// Ends a process in order, and waits for its end.
fn stop(pid: u32) -> Result<(), RunError> {
    let doing = "stopping the instance";
    let failed = |source: std::io::Error| RunError::System { doing, source };
    let target = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let target = target.ok_or_else(|| failed(std::io::ErrorKind::NotFound.into()))?;
    kill_process(target, Signal::TERM).map_err(|errno| failed(errno.into()))?;
    let deadline = Instant::now() + STOP_TIMEOUT;
    while rustix::process::test_kill_process(target).is_ok() {
        if Instant::now() > deadline {
            return Err(failed(std::io::ErrorKind::TimedOut.into()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Longest time for an orderly stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
