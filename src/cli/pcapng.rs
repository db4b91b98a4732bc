//! Captures: packets with a comment each, as a pcapng file or into a pipe.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use data_encoding::HEXLOWER;
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::{DataLink, PcapError};

use super::exit::Failure;
use crate::api::PacketView;

/// A capture that is being written.
pub(super) struct CaptureFile {
    writer: PcapNgWriter<Box<dyn Write>>,
    path: PathBuf,
}

impl CaptureFile {
    /// Begins a capture with these interfaces. `-` stands for standard output.
    ///
    /// # Errors
    /// An environment error when the file cannot be written.
    pub(super) fn create(path: &Path, interfaces: &[&str]) -> Result<Self, Failure> {
        let is_pipe = path == Path::new("-");
        let file: Box<dyn Write> = if is_pipe {
            Box::new(io::stdout())
        } else {
            let file = File::create(path);
            Box::new(file.with_context(|| cannot_write(path)).map_err(Failure::environment)?)
        };
        Self::begin(file, path, interfaces)
    }

    fn begin(file: Box<dyn Write>, path: &Path, interfaces: &[&str]) -> Result<Self, Failure> {
        // One write for each block, so that the reader of a pipe sees whole packets at once.
        let file: Box<dyn Write> = Box::new(io::BufWriter::with_capacity(1 << 16, file));
        let failed = |error| failure(path, error);
        let mut writer = PcapNgWriter::new(file).map_err(failed)?;
        // libpcap refuses a second interface of the type RAW, which also stands for IPv6.
        let linktype = if interfaces.len() > 1 { DataLink::IPV4 } else { DataLink::RAW };
        for name in interfaces {
            let options = vec![
                InterfaceDescriptionOption::IfName(Cow::Borrowed(name)),
                InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
            ];
            let interface = InterfaceDescriptionBlock { linktype, snaplen: 0, options };
            writer.write_pcapng_block(interface).map_err(failed)?;
        }
        let mut capture = Self { writer, path: path.to_owned() };
        capture.flush()?;
        Ok(capture)
    }

    /// Adds a packet. Returns false when the reader of the pipe has closed its end.
    ///
    /// # Errors
    /// An environment error, for example a full disk.
    pub(super) fn add(
        &mut self,
        interface: u32,
        at: &str,
        packet: &PacketView,
        comment: String,
    ) -> Result<bool, Failure> {
        let data = HEXLOWER.decode(packet.bytes.as_bytes()).map_err(Failure::bug)?;
        let block = EnhancedPacketBlock {
            interface_id: interface,
            timestamp: since_1970(at),
            original_len: packet.length,
            data: data.into(),
            options: vec![EnhancedPacketOption::Comment(comment.into())],
        };
        match self.writer.write_pcapng_block(block) {
            Ok(_) => Ok(true),
            Err(error) => self.ended(error),
        }
    }

    /// Writes what is buffered. Returns false when the reader of the pipe has closed its end.
    ///
    /// # Errors
    /// An environment error, for example a full disk.
    pub(super) fn flush(&mut self) -> Result<bool, Failure> {
        match self.writer.get_mut().flush() {
            Ok(()) => Ok(true),
            Err(error) => self.ended(PcapError::IoError(error)),
        }
    }

    fn ended(&self, error: PcapError) -> Result<bool, Failure> {
        if let PcapError::IoError(error) = &error
            && error.kind() == ErrorKind::BrokenPipe
        {
            return Ok(false);
        }
        Err(failure(&self.path, error))
    }
}

fn failure(path: &Path, error: PcapError) -> Failure {
    Failure::environment(anyhow::Error::new(error).context(cannot_write(path)))
}

fn cannot_write(path: &Path) -> String {
    format!("cannot write {}", path.display())
}

/// Returns the time since 1970. A time that cannot be read is 0.
fn since_1970(at: &str) -> Duration {
    let time = humantime::parse_rfc3339(at).unwrap_or(SystemTime::UNIX_EPOCH);
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// Unit of the timestamps: the exponent of ten.
const NANOSECONDS: u8 = 9;

#[cfg(test)]
mod tests {
    use pcap_file::pcapng::{Block, PcapNgReader};

    use super::*;

    #[test]
    fn packets_read_back_with_time_length_and_comment() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("drops.pcapng");
        let mut capture = CaptureFile::create(&path, &["before", "after"]).unwrap();
        let packet =
            PacketView { length: 1500, summary: String::new(), bytes: "4500ff".to_owned() };
        let at = "2026-11-25T15:00:00.250Z";
        assert!(capture.add(1, at, &packet, "no-mapping".to_owned()).unwrap());
        assert!(capture.flush().unwrap());
        let mut reader = PcapNgReader::new(File::open(&path).unwrap()).unwrap();
        let mut packets = Vec::new();
        while let Some(block) = reader.next_block() {
            if let Block::EnhancedPacket(packet) = block.unwrap() {
                packets.push(packet.into_owned());
            }
        }
        assert_eq!(reader.interfaces().len(), 2);
        let [found] = &packets[..] else { panic!("{packets:?}") };
        assert_eq!((found.interface_id, found.original_len), (1, 1500));
        assert_eq!(found.data[..], [0x45, 0, 0xff]);
        assert_eq!(found.timestamp, since_1970(at));
        let comment = EnhancedPacketOption::Comment("no-mapping".into());
        assert_eq!(found.options, [comment]);
    }

    #[test]
    fn a_closed_pipe_ends_the_capture_and_is_no_error() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut capture = CaptureFile::begin(Box::new(Closed), Path::new("-"), &["x"]).unwrap();
        assert!(!capture.flush().unwrap());
    }
}
