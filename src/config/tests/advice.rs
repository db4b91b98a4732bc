//! The advice fits the value that was found.

use super::*;

/// Returns the problem of the only bad key.
fn problem(text: &str) -> String {
    let problems = rejection(text);
    assert_eq!(problems.lines().count(), 1, "{problems}");
    problems
}

#[test]
fn examples_lie_in_the_range() {
    let busy_poll = problem(&with("tun: { busy_poll: 5s }"));
    assert!(busy_poll.contains("from 0 to 1ms, such as 50us; shorten it"), "{busy_poll}");
    let delayed = problem(&with("limits: { delayed_ports: 1M }"));
    assert!(delayed.contains("such as 4096 or 64k; lower it"), "{delayed}");
    let long = problem(&with("timeouts: { udp: 99999999999999999999s }"));
    assert!(long.contains("; shorten it"), "{long}");
}

#[test]
fn a_port_of_zero_is_named() {
    let dns = |server: &str| {
        let update = format!("{{ server: '{server}', key: k, secret_file: /k }}");
        with(&format!(
            "dns: {{ zone: a.org, names: [{{ name: w }}], listen: false, update: {update} }}"
        ))
    };
    for text in [dns("8.8.8.8:0"), with("admin: { http: '10.0.0.5:0' }")] {
        let problem = problem(&text);
        assert!(problem.contains("; choose a port from 1 to 65535"), "{problem}");
    }
    for server in ["2001:db8::53", "[2001:db8::53]:53"] {
        let problem = problem(&dns(server));
        assert!(problem.contains("; write an IPv4 address: natbox sends updates"), "{problem}");
    }
    // No line carries the admin interface.
    accepted(&with("admin: { http: '[::1]:9640' }"));
}

#[test]
fn numbers_with_zeros_in_front_are_refused() {
    for text in [
        with("forwards: [{ protocol: tcp, port: 00000080, to: 10.0.0.5 }]"),
        with("forwards: [{ protocol: tcp, port: 80, to: '10.0.0.5:080' }]"),
        with("nat: { ports: 02000-3000 }"),
        with("nat: { mss_clamp: 01400 }"),
        with("limits: { sessions: 064k }"),
        with("outbound: [{ from: 10.0.0.0/08 }]"),
        SHORT.replace("203.0.113.10", "203.0.113.10-020"),
        SHORT.replace("wan0,", "wan0, weight: 010,"),
        with("admin: { http: '127.0.0.1:09640' }"),
    ] {
        let problem = problem(&text);
        assert!(problem.contains("zeros"), "{problem}");
    }
}

#[test]
fn names_of_interfaces_get_their_own_advice() {
    for (name, words) in [
        (".", "no name of dots alone"),
        ("..", "no name of dots alone"),
        ("\\0", "leave out the control characters"),
        ("a b", "no blanks"),
        ("a/b", "no `/` or `:`"),
    ] {
        let problem = problem(&SHORT.replace("lan0", &format!("\"{name}\"")));
        assert!(problem.contains(words), "{problem}");
    }
}

#[test]
fn pages_are_written_out() {
    for (page, words) in [
        (" http://192.0.2.80/", "leave out the blanks"),
        ("http://192.0.2.80/a b", "leave out the blanks"),
        ("http://1.2.3/", "write the address as four numbers"),
        ("http://0x7f000001/", "write the address as four numbers"),
        ("http://192.0.2.80:0/", "choose a port"),
        ("http://192.0.2.80/#top", "leave out `#`"),
    ] {
        let health = format!("wan0, health: {{ http: [\"{page}\"] }},");
        let problem = problem(&SHORT.replace("wan0,", &health));
        assert!(problem.contains(words), "{problem}");
    }
}

#[test]
fn a_deep_file_and_a_missing_file_are_named() {
    for depth in [20, 300, 20_000] {
        let problem = problem(&with(&format!("dns: {}", "[".repeat(depth))));
        assert!(problem.contains("found more than 16 levels of nesting"), "{problem}");
    }
    let missing = load(Path::new("/nonexistent/natbox.yaml")).unwrap_err().to_string();
    assert!(missing.ends_with("; correct the path after --config"), "{missing}");
    let directory = load(Path::new("/")).unwrap_err().to_string();
    assert!(directory.ends_with("; write the path of a file after --config"), "{directory}");
}

#[test]
fn a_target_that_is_the_box_itself_gets_advice() {
    let forward =
        |to: &str| with(&format!("forwards: [{{ protocol: tcp, port: 22, to: '{to}' }}]"));
    for to in ["203.0.113.10:22", "127.0.0.1:22"] {
        let problem = problem(&forward(to));
        assert!(problem.contains("for a service of the box itself"), "{problem}");
    }
    accepted(&forward("10.0.0.1:22"));
}
