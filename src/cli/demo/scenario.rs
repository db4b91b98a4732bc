//! The differences between the scenarios of the demo.

use std::net::Ipv4Addr;

use super::diagram;
use super::report::UplinkReport;
use crate::lab::topology::{Private, ThreeLeggedPlan, Topology, TwoBoxPlan, own_interface};
use crate::lab::{Lab, LabError};

/// A scenario other than that of two instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::Subcommand)]
pub(super) enum Scenario {
    /// One instance with two uplinks: the server has one address and needs no policy routing
    ThreeLegged,
    /// One instance with two uplinks, one of which fails: only sessions of that uplink are affected
    Failover,
}

/// The set-up and the texts of a scenario.
#[derive(Clone, Copy, Debug)]
pub(super) struct ScenarioSpec {
    /// Name in the JSON report; `None` for the scenario of two instances.
    pub(super) name: Option<&'static str>,
    /// First line of the output.
    pub(super) title: &'static str,
    /// Name and published configuration of each instance, in the order of the uplinks.
    pub(super) boxes: &'static [(&'static str, &'static str)],
    /// Origin of the configurations.
    pub(super) copies: &'static str,
    /// Builds the namespaces with uplinks of this rate in Mbit/s.
    pub(super) build: fn(&Lab, u32) -> Result<Topology, LabError>,
    /// Whether an uplink fails after the measurements.
    pub(super) fails: bool,
    /// Draws the setup.
    pub(super) diagram: fn(&[UplinkReport], u32, &[Ipv4Addr]) -> String,
}

/// Two uplinks, two instances.
const TWO_BOXES: ScenarioSpec = ScenarioSpec {
    name: None,
    title: "natbox demo: one server, two unrelated uplinks, two instances, in network namespaces",
    boxes: &[
        ("natbox1", include_str!("../../../configs/natbox1.yaml")),
        ("natbox2", include_str!("../../../configs/natbox2.yaml")),
    ],
    copies: "copies of configs/natbox1.yaml and natbox2.yaml with an admin.socket of their own",
    build: |lab, mbit| {
        Topology::two_uplinks(
            lab,
            TwoBoxPlan { private: Private::Shared, servers: 1, mbit: Some(mbit) },
        )
    },
    fails: false,
    diagram: diagram::two_boxes,
};

/// Two uplinks, one instance.
const THREE_LEGGED: ScenarioSpec = ScenarioSpec {
    name: Some("three-legged"),
    title: "natbox demo three-legged: one server, two unrelated uplinks, one instance, in network namespaces",
    boxes: &[("three-legged", include_str!("../../../configs/three-legged.yaml"))],
    copies: "a copy of configs/three-legged.yaml with an admin.socket of its own",
    build: build_three_legged,
    fails: false,
    diagram: diagram::three_legged,
};

/// Two uplinks, one instance with health checks.
const FAILOVER: ScenarioSpec = ScenarioSpec {
    name: Some("failover"),
    title: "natbox demo failover: one instance, two uplinks of which one fails, in network namespaces",
    boxes: &[("failover", include_str!("../../../configs/failover.yaml"))],
    copies: "a copy of configs/failover.yaml with an admin.socket of its own",
    build: build_three_legged,
    fails: true,
    diagram: diagram::three_legged,
};

fn build_three_legged(lab: &Lab, mbit: u32) -> Result<Topology, LabError> {
    let plan = ThreeLeggedPlan { uplinks: 2, servers: 1, mbit: Some(mbit), one_network: false };
    Topology::three_legged(lab, plan, own_interface)
}

impl ScenarioSpec {
    /// Returns the spec of a scenario; without one, that of two instances.
    pub(super) fn of(scenario: Option<Scenario>) -> &'static ScenarioSpec {
        match scenario {
            None => &TWO_BOXES,
            Some(Scenario::ThreeLegged) => &THREE_LEGGED,
            Some(Scenario::Failover) => &FAILOVER,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn published_configurations_fit_their_topologies() {
        let one = json!({ "interface": "wan0", "addresses": ["203.0.113.10"], "gateway": "203.0.113.254" });
        let two = |interface| json!({ "interface": interface, "addresses": ["198.51.100.10"], "gateway": "198.51.100.254" });
        let three_legged = vec![one.clone(), two("wan1")];
        for ((name, text), uplinks, server) in [
            (TWO_BOXES.boxes[0], vec![one], "10.0.0.101:80"),
            (TWO_BOXES.boxes[1], vec![two("wan0")], "10.0.0.202:80"),
            (THREE_LEGGED.boxes[0], three_legged.clone(), "10.0.0.101:80"),
            (FAILOVER.boxes[0], three_legged, "10.0.0.101:80"),
        ] {
            let tree: Value = serde_yaml_ng::from_str(text).unwrap();
            assert_eq!(tree["name"], *name);
            assert_eq!(tree["inside"]["interface"], "lan0");
            assert_eq!(tree["uplinks"].as_array().unwrap().len(), uplinks.len());
            for (found, wanted) in tree["uplinks"].as_array().unwrap().iter().zip(&uplinks) {
                for key in ["interface", "addresses", "gateway"] {
                    assert_eq!(found[key], wanted[key], "{name}");
                }
            }
            let forward = &tree["forwards"][0];
            assert_eq!((&forward["port"], &forward["to"]), (&80.into(), &server.into()));
            assert_eq!(forward["uplink"], Value::Null, "published on every uplink");
        }
    }
}
