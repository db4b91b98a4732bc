//! The pictures of the setups.

use std::net::Ipv4Addr;

use super::report::UplinkReport;

/// Draws two uplinks with a box each.
pub(super) fn two_boxes(uplinks: &[UplinkReport], rate_mbit: u32, clients: &[Ipv4Addr]) -> String {
    let [one, two] = uplinks else { return String::new() };
    [
        upper_half(one, two, rate_mbit, clients),
        row("natbox1", "natbox2"),
        row(&one.inside.to_string(), &two.inside.to_string()),
        format!("    {:>13}{}┬{}┘\n", "└", "─".repeat(14), "─".repeat(14)),
        middle("web server"),
        middle(&format!("{}  {}", one.server, two.server)),
    ]
    .concat()
}

/// Draws two uplinks with one box.
pub(super) fn three_legged(
    uplinks: &[UplinkReport],
    rate_mbit: u32,
    clients: &[Ipv4Addr],
) -> String {
    let [one, two] = uplinks else { return String::new() };
    [
        upper_half(one, two, rate_mbit, clients),
        format!("    {:>13}{}┬{}┘\n", "└", "─".repeat(14), "─".repeat(14)),
        middle("natbox"),
        middle(&one.inside.to_string()),
        format!("    {:>28}\n", "│"),
        middle("web server"),
        middle(&one.server.to_string()),
    ]
    .concat()
}

/// Draws the part from the clients down to the published endpoints.
fn upper_half(
    one: &UplinkReport,
    two: &UplinkReport,
    rate_mbit: u32,
    clients: &[Ipv4Addr],
) -> String {
    let ends = match clients {
        [first, .., last] => format!("clients {first} ... {last}"),
        _ => "clients".to_owned(),
    };
    let rate = format!("{rate_mbit} Mbit/s");
    [
        middle(&ends),
        row("│", "│"),
        row(&format!("{}, {rate}", one.name), &format!("{}, {rate}", two.name)),
        row("│", "│"),
        row(&one.published.to_string(), &two.published.to_string()),
    ]
    .concat()
}

fn row(left: &str, right: &str) -> String {
    format!("{}\n", format!("    {left:^26}    {right:^26}").trim_end())
}

fn middle(text: &str) -> String {
    format!("{}\n", format!("    {text:^57}").trim_end())
}
