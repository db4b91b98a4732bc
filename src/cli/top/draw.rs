//! The screen of `natbox top`: everything in 80 columns and 24 rows, more on a larger terminal.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, RenderDirection, Row, Sparkline, Table};

use super::sample::{Group, View};
use crate::api::{InstanceState, UplinkStatus};

/// Draws a view. `note`: the last line, such as an error or the keys.
pub(super) fn draw(frame: &mut Frame<'_>, view: &View, note: &str) {
    let uplinks = view.uplinks.len().clamp(1, MAX_UPLINKS) as u16 + 1;
    let drops = view.drops.len().clamp(1, 3) as u16 + 1;
    let [head, lines, lists, sessions, lost, foot] = Layout::vertical([
        Constraint::Length(3),
        Constraint::Length(uplinks),
        Constraint::Fill(1),
        Constraint::Fill(1),
        Constraint::Length(drops),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(head_lines(view)), head);
    draw_uplinks(frame, view, lines);
    let [left, right] =
        Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).spacing(2).areas(lists);
    draw_groups(frame, "FORWARD", &view.forwards, view, left);
    draw_groups(frame, "HOST", &view.hosts, view, right);
    draw_sessions(frame, view, sessions);
    draw_drops(frame, view, lost);
    frame.render_widget(Paragraph::new(note).style(faint()), foot);
}

fn head_lines(view: &View) -> Vec<Line<'static>> {
    let status = &view.status;
    let sessions = &status.sessions;
    let state = match status.state {
        InstanceState::Running => format!("up {}", age(status.uptime_seconds)),
        InstanceState::Waiting => format!("waiting: {}", status.waiting_for.join("; ")),
    };
    let filled = u64::from(sessions.now) * 100 / u64::from(sessions.capacity.max(1));
    let [packets_in, packets_out] = view.packets;
    vec![
        Line::from(vec![
            Span::styled(
                format!("natbox {}", status.name),
                Style::new().add_modifier(Modifier::BOLD),
            ),
            Span::raw(format!(
                "  {state}  packets {}/s in, {}/s out",
                short(packets_in),
                short(packets_out)
            )),
        ]),
        Line::from(format!(
            "sessions {} of {} ({filled} %), {}/s new   mappings {}   workers {}",
            sessions.now,
            sessions.capacity,
            short(view.opened),
            status.mappings,
            status.workers.len(),
        )),
        Line::default(),
    ]
}

fn draw_uplinks(frame: &mut Frame<'_>, view: &View, area: Rect) {
    let [table, graphs] =
        Layout::horizontal([Constraint::Length(62), Constraint::Fill(1)]).spacing(1).areas(area);
    let rows = view.status.uplinks.iter().zip(&view.uplinks).map(|(status, rates)| {
        let measured = |value: Option<f64>, unit: &str| {
            value.map_or("-".to_owned(), |value| format!("{value:.1}{unit}"))
        };
        let (state, style) = uplink_state(status);
        Row::new([
            Cell::from(status.name.clone()),
            Cell::from(state).style(style),
            right(bits(rates.inbound), 9),
            right(bits(rates.outbound), 9),
            right(format!("{}%", rates.share), 5),
            right(measured(status.loss_percent, "%"), 6),
            right(measured(status.latency_milliseconds, "ms"), 8),
        ])
    });
    let widths = [10, 7, 9, 9, 5, 6, 8].map(Constraint::Length);
    let titles = ["UPLINK", "STATE"].map(|title| Cell::from(title.to_owned()));
    let numbers = [("IN", 9), ("OUT", 9), ("SHARE", 5), ("LOSS", 6), ("LATENCY", 8)];
    let titles =
        titles.into_iter().chain(numbers.map(|(title, width)| right(title.to_owned(), width)));
    frame.render_widget(Table::new(rows, widths).header(Row::new(titles).style(title())), table);
    for (place, rates) in view.uplinks.iter().take(MAX_UPLINKS).enumerate() {
        let y = graphs.y + 1 + place as u16;
        if y >= graphs.bottom() {
            break;
        }
        let newest_first: Vec<u64> = rates.history.iter().rev().copied().collect();
        let graph = Sparkline::default()
            .data(&newest_first)
            .direction(RenderDirection::RightToLeft)
            .style(Style::new().fg(Color::Cyan));
        frame.render_widget(graph, Rect { y, height: 1, ..graphs });
    }
}

fn uplink_state(status: &UplinkStatus) -> (&'static str, Style) {
    match status {
        UplinkStatus { last_resort: true, .. } => ("last", Style::new().fg(Color::Yellow)),
        UplinkStatus { healthy: false, .. } => ("failed", Style::new().fg(Color::Red)),
        UplinkStatus { in_use: true, .. } => ("in use", Style::new().fg(Color::Green)),
        _ => ("ready", Style::new()),
    }
}

fn draw_groups(frame: &mut Frame<'_>, name: &str, groups: &[Group], view: &View, area: Rect) {
    let rows = groups.iter().map(|group| {
        let name = if group.name.is_empty() { "-" } else { &group.name };
        let rate = if view.status.sessions.accounting { bits(group.rate) } else { "-".to_owned() };
        Row::new([
            Cell::from(name.to_owned()),
            right(group.sessions.to_string(), 10),
            right(rate, 9),
        ])
    });
    let header =
        [Cell::from(name.to_owned()), right("SESSIONS".into(), 10), right("RATE".into(), 9)];
    let widths = [Constraint::Fill(1), Constraint::Length(10), Constraint::Length(9)];
    frame.render_widget(Table::new(rows, widths).header(Row::new(header).style(title())), area);
}

fn draw_sessions(frame: &mut Frame<'_>, view: &View, area: Rect) {
    if !view.status.sessions.accounting {
        let text = "SESSIONS BY RATE: set limits.accounting to true and restart";
        return frame.render_widget(Paragraph::new(text).style(faint()), area);
    }
    let rows = view.sessions.iter().map(|(session, rate)| {
        Row::new([
            Cell::from(session.protocol.clone()),
            Cell::from(session.client.clone()),
            Cell::from(session.server.clone()),
            Cell::from(session.uplink.clone()),
            right(bits(*rate), 9),
        ])
    });
    let header = ["PROTO", "CLIENT", "SERVER", "UPLINK"].map(|title| Cell::from(title.to_owned()));
    let header = header.into_iter().chain([right("RATE".to_owned(), 9)]);
    let widths = [5, 21, 21, 10, 9].map(Constraint::Length);
    frame.render_widget(Table::new(rows, widths).header(Row::new(header).style(title())), area);
}

fn draw_drops(frame: &mut Frame<'_>, view: &View, area: Rect) {
    let rows = view.drops.iter().map(|(reason, rate, count)| {
        let style = if *rate == 0 { Style::new() } else { Style::new().fg(Color::Yellow) };
        Row::new([
            Cell::from(reason.clone()),
            right(format!("{rate}/s"), 10),
            right(count.to_string(), 14),
        ])
        .style(style)
    });
    let header = [Cell::from("DROPS"), right("RATE".into(), 10), right("IN ALL".into(), 14)];
    let widths = [28, 10, 14].map(Constraint::Length);
    frame.render_widget(Table::new(rows, widths).header(Row::new(header).style(title())), area);
}

fn right(text: String, width: usize) -> Cell<'static> {
    Cell::from(format!("{text:>width$}"))
}

fn title() -> Style {
    Style::new().add_modifier(Modifier::REVERSED)
}

fn faint() -> Style {
    Style::new().add_modifier(Modifier::DIM)
}

/// Formats bytes a second as bits a second.
fn bits(bytes: u64) -> String {
    format!("{}b/s", short(bytes.saturating_mul(8)))
}

/// Formats a number with three digits and a decimal prefix.
fn short(number: u64) -> String {
    let prefixes = ["", "k", "M", "G", "T"];
    let (mut value, mut place) = (number as f64, 0);
    while value >= 999.5 && place + 1 < prefixes.len() {
        value /= 1000.0;
        place += 1;
    }
    let decimals = if place == 0 || value >= 99.95 { 0 } else { 1 };
    format!("{value:.decimals$}{}", prefixes[place])
}

/// Formats seconds as the two largest units.
fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// Uplinks that have rows.
const MAX_UPLINKS: usize = 8;

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::sample::UplinkRates;
    use super::*;
    use crate::api::{SessionStatus, SessionView, Status, TupleView};

    fn view(accounting: bool) -> View {
        let uplink = |name: &str| UplinkStatus {
            name: name.to_owned(),
            healthy: true,
            in_use: true,
            loss_percent: Some(0.5),
            latency_milliseconds: Some(12.34),
            ..UplinkStatus::default()
        };
        let rates = |inbound| UplinkRates {
            inbound,
            outbound: 1_250_000,
            share: 50,
            history: VecDeque::from([1, 5, 9]),
        };
        let group = |name: &str| Group { name: name.to_owned(), sessions: 7, rate: 125_000 };
        let tuple = TupleView { source: String::new(), destination: String::new() };
        let session = SessionView {
            id: 1,
            protocol: "tcp".to_owned(),
            state: "established".to_owned(),
            origin: "forward".to_owned(),
            uplink: "isp1".to_owned(),
            forward: None,
            client: "192.0.2.107:42424".to_owned(),
            published: String::new(),
            server: "10.100.100.105:8080".to_owned(),
            original: tuple.clone(),
            reply: tuple,
            idle_seconds: 0,
            expires_in_seconds: 0,
            traffic: None,
        };
        View {
            status: Status {
                name: "natbox1".to_owned(),
                uptime_seconds: 3720,
                uplinks: vec![uplink("isp1"), uplink("isp2")],
                sessions: SessionStatus {
                    now: 12_345,
                    capacity: 1_000_000,
                    accounting,
                    ..SessionStatus::default()
                },
                ..Status::default()
            },
            packets: [123_456, 7],
            opened: 250,
            uplinks: vec![rates(125_000_000), rates(0)],
            forwards: (0..20).map(|number| group(&format!("web{number}"))).collect(),
            hosts: vec![group("10.0.0.9")],
            sessions: vec![(session, 1_000_000)],
            drops: vec![("tcp-without-session".to_owned(), 3, 99)],
        }
    }

    fn screen(view: &View, columns: u16, rows: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
        terminal.draw(|frame| draw(frame, view, "q quit")).unwrap();
        let buffer = terminal.backend().buffer();
        let row = |y: u16| (0..columns).map(|x| buffer[(x, y)].symbol()).collect::<String>();
        (0..rows).map(row).map(|row| row.trim_end().to_owned()).collect()
    }

    #[test]
    fn every_part_is_on_a_screen_of_80_by_24() {
        let screen = screen(&view(true), 80, 24);
        let text = screen.join("\n");
        assert_eq!(screen[0], "natbox natbox1  up 1h2m  packets 123k/s in, 7/s out");
        let table = "sessions 12345 of 1000000 (1 %), 250/s new   mappings 0   workers 0";
        assert_eq!(screen[1], table);
        for wanted in [
            "isp1       in use    1.0Gb/s  10.0Mb/s   50%   0.5%   12.3ms",
            "web0                        7   1.0Mb/s",
            "10.0.0.9",
            "tcp   192.0.2.107:42424     10.100.100.105:8080   isp1         8.0Mb/s",
            "tcp-without-session                 3/s             99",
            "▄█",
        ] {
            assert!(text.contains(wanted), "{wanted:?} is missing:\n{text}");
        }
        assert_eq!(screen[23], "q quit");
    }

    #[test]
    fn no_size_of_the_terminal_breaks_the_screen() {
        for (columns, rows) in [(1, 1), (10, 3), (80, 5), (200, 60), (40, 24)] {
            screen(&view(false), columns, rows);
            screen(&View::default(), columns, rows);
        }
    }

    #[test]
    fn numbers_have_three_digits_and_a_prefix() {
        let cases = [(0, "0"), (999, "999"), (1000, "1.0k"), (99_949, "99.9k"), (99_950, "100k")];
        for (number, text) in cases {
            assert_eq!(short(number), text);
        }
        assert_eq!(short(999_600), "1.0M");
        assert_eq!((age(59), age(86_400 * 3)), ("59s".to_owned(), "3d0h".to_owned()));
    }
}
