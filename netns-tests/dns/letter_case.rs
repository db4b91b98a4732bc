//! A resolver that writes its queries in random letter case and checks the letter case of the
//! answers (unbound: `use-caps-for-id`).

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use natbox::lab::topology::Private;

use super::dead_uplink::{RECURSIVE, ROOT, delegate, resolve};
use super::programs::resolver_with;
use super::{Address, ZONE, start};
use crate::lab::Site;

/// Longest time for a name on a busy machine. If the letter case were lost, unbound would ask every
/// server three times and compare the answers.
const QUICK: Duration = Duration::from_secs(3);

#[test]
fn resolver_that_checks_the_letter_case_gets_its_answers_at_once() -> Result<()> {
    let site = Site::new(Private::Shared, 1)?;
    let dns = format!("{ZONE}, ttl: 1s, names: [{{ name: www }}, {{ name: other }}]");
    let _boxes = [start(&site, 0, Address::Owned, &dns)?, start(&site, 1, Address::Nobodys, &dns)?];
    let _root = delegate(&site)?;
    let options = "  use-caps-for-id: yes\n  verbosity: 2\n";
    let unbound = resolver_with(&site.lab, site.client(), RECURSIVE, ROOT, options)?;
    for _ in 0..3 {
        for name in ["www.example.org", "other.example.org", "ns1.example.org"] {
            let asked = Instant::now();
            let found = resolve(&site, name)?;
            ensure!(found.len() == 1 && asked.elapsed() < QUICK, "{name}: {found:?}");
        }
        // Names that do not exist are answered in the same way.
        let asked = Instant::now();
        ensure!(resolve(&site, "nowhere.example.org")?.is_empty() && asked.elapsed() < QUICK);
        std::thread::sleep(Duration::from_millis(1100));
    }
    let log = unbound.log();
    ensure!(!log.contains("Capsforid"), "it had to ask again:\n{log}");

    // One name server is silent, and unbound knows by now that the other one answers.
    site.uplink(0).provider.sysctl("net/ipv4/ip_forward", "0")?;
    for _ in 0..6 {
        let asked = Instant::now();
        let found = resolve(&site, "www.example.org")?;
        ensure!(found.len() == 1 && asked.elapsed() < 2 * QUICK, "{found:?}");
        std::thread::sleep(Duration::from_millis(600));
    }
    Ok(())
}
