//! Options of every scenario.

/// Options of every scenario. They may precede or follow its name.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct DemoOptions {
    /// Print the report as JSON (progress goes to standard error)
    #[arg(long, global = true)]
    pub json: bool,
    /// Rate limit of each uplink in both directions, in Mbit/s
    #[arg(long, global = true, value_name = "MBIT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(5..=1000))]
    pub rate: u32,
    /// Length of each of the three measurements, in seconds
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub seconds: u32,
    /// Keep everything running after the report, until Enter or Ctrl-C
    #[arg(long, global = true)]
    pub keep: bool,
}
