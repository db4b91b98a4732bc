//! Which expressions need connection tracking.

use serde_json::Value;

/// Matches and targets of iptables that never need connection tracking.
const STATELESS: [&str; 18] = [
    "comment",
    "tcp",
    "udp",
    "icmp",
    "multiport",
    "addrtype",
    "limit",
    "hashlimit",
    "set",
    "mark",
    "mac",
    "pkttype",
    "LOG",
    "NFLOG",
    "MARK",
    "TCPMSS",
    "REJECT",
    "DROP",
];

/// Returns true when an expression needs connection tracking, or may need it.
pub(super) fn uses_tracking(expression: &Value) -> bool {
    let Some((word, value)) = expression.as_object().and_then(|object| object.iter().next()) else {
        return true;
    };
    match word.as_str() {
        "flow" | "synproxy" => true,
        "xt" => !value["name"].as_str().is_some_and(|name| STATELESS.contains(&name)),
        _ => has_key(expression, "ct"),
    }
}

/// Returns true when an object at any depth has a key that is `key` or begins with that word.
fn has_key(value: &Value, key: &str) -> bool {
    match value {
        Value::Object(object) => object.iter().any(|(name, inner)| {
            name == key
                || name.strip_prefix(key).is_some_and(|rest| rest.starts_with(' '))
                || has_key(inner, key)
        }),
        Value::Array(values) => values.iter().any(|inner| has_key(inner, key)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}
