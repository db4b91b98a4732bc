//! A netlink socket: reads a [`Snapshot`], makes and removes the change of a [`Step`].

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use futures_util::stream::{Stream, StreamExt};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::neighbour::NeighbourFlags;
use rtnetlink::{Handle, IpVersion, LinkUnspec, RouteMessageBuilder};
use tokio::task::JoinHandle;

use super::decode;
use super::encode::{address_message, proxy_message, route_message, rule_message};
use super::indices::Indices;
use crate::host::error::HostError;
use crate::host::model::snapshot::{Link, Snapshot};
use crate::host::model::step::{RTPROT_NATBOX, Rule, Step, TUN_MTU, TUN_QUEUE_LENGTH};

/// Protocol number of the kernel's own rules (`RTPROT_KERNEL`).
const RTPROT_KERNEL: u8 = 2;
/// Errors of the kernel that mean "the object does not exist".
const NOT_FOUND: [i32; 6] =
    [libc::ENOENT, libc::ESRCH, libc::ENXIO, libc::ENODEV, libc::ENETDOWN, libc::EADDRNOTAVAIL];

/// A netlink socket of the calling process's network namespace.
pub(crate) struct Kernel {
    handle: Handle,
    connection: JoinHandle<()>,
}

impl Drop for Kernel {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Kernel {
    /// Opens the socket. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the kernel grants no netlink socket.
    pub(crate) fn connect() -> Result<Self, HostError> {
        let (connection, handle, _) = rtnetlink::new_connection()
            .map_err(|source| HostError::Netlink { doing: "netlink socket".into(), source })?;
        Ok(Self { handle, connection: tokio::spawn(connection) })
    }

    /// Returns the handle, for requests of other files of this folder.
    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Reads interfaces, addresses, routes, rules and proxy entries.
    ///
    /// # Errors
    /// When the kernel refuses a dump.
    pub(crate) async fn snapshot(&self) -> Result<Snapshot, HostError> {
        let links = self.links().await?;
        let names: HashMap<u32, &str> =
            links.iter().map(|link| (link.index, link.name.as_str())).collect();
        let addresses = dump("listing addresses", self.handle.address().get().execute()).await?;
        let routes = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let routes = dump("listing routes", self.handle.route().get(routes).execute()).await?;
        let rules = dump("listing rules", self.handle.rule().get(IpVersion::V4).execute()).await?;
        let proxies =
            self.handle.neighbours().get().proxies().set_address_family(AddressFamily::Inet);
        let proxies = dump("listing proxy neighbour entries", proxies.execute()).await?;
        Ok(Snapshot {
            addresses: addresses.iter().filter_map(decode::address).collect(),
            routes: routes.iter().filter_map(|message| decode::route(message, &names)).collect(),
            rules: rules.iter().map(decode::rule).collect(),
            proxies: proxies.iter().filter_map(decode::proxy).collect(),
            links,
        })
    }

    /// Reads the interfaces.
    ///
    /// # Errors
    /// When the kernel refuses the dump.
    pub(crate) async fn links(&self) -> Result<Vec<Link>, HostError> {
        let links = dump("listing interfaces", self.handle.link().get().execute()).await?;
        Ok(links.iter().filter_map(decode::link).collect())
    }

    /// Makes the change of a step other than a sysctl.
    ///
    /// # Errors
    /// When the kernel refuses the change, for example because an equal object exists.
    pub(crate) async fn add(&self, step: &Step, indices: &Indices) -> Result<(), HostError> {
        let result = match step {
            Step::BringUpTun { device } => {
                let message = LinkUnspec::new_with_index(indices.of(device)?)
                    .mtu(TUN_MTU)
                    .txqueuelen(TUN_QUEUE_LENGTH)
                    .up();
                self.handle.link().change(message.build()).execute().await
            }
            Step::Address { device, address } => {
                let message = address_message(*address, indices.of(device)?);
                let mut request = self.handle.address().add(0, IpAddr::V4(*address), 32);
                *request.message_mut() = message;
                request.execute().await
            }
            Step::Route(route) => {
                let message = route_message(route, indices)?;
                self.handle.route().add(message).execute().await
            }
            Step::Rule(rule) => self.add_rule(rule, RTPROT_NATBOX).await,
            Step::ProxyNeighbour { address, device } => {
                let neighbours = self.handle.neighbours();
                let request = neighbours.add(indices.of(device)?, IpAddr::V4(*address));
                request.flags(NeighbourFlags::Proxy).execute().await
            }
            Step::RemoveDefaultLocalRule => {
                self.handle.rule().del(rule_message(&Rule::default_local(), None)).execute().await
            }
            Step::Sysctl { .. } => unreachable!("the sysctl module writes sysctls"),
        };
        result.map_err(|error| HostError::netlink(step.command(), error))
    }

    /// Removes the change of a step other than a sysctl. Succeeds when the change is gone already.
    ///
    /// # Errors
    /// When the kernel refuses the removal.
    pub(crate) async fn remove(&self, step: &Step, indices: &Indices) -> Result<(), HostError> {
        // The kernel has removed what depends on a device together with the device.
        if step.device().is_some_and(|device| !indices.contains(device)) {
            return Ok(());
        }
        let result = match step {
            Step::BringUpTun { .. } => Ok(()),
            Step::Address { device, address } => {
                let message = address_message(*address, indices.of(device)?);
                self.handle.address().del(message).execute().await
            }
            Step::Route(route) => {
                let message = route_message(route, indices)?;
                self.handle.route().del(message).execute().await
            }
            Step::Rule(rule) => {
                self.handle.rule().del(rule_message(rule, Some(RTPROT_NATBOX))).execute().await
            }
            Step::ProxyNeighbour { address, device } => {
                let message = proxy_message(*address, indices.of(device)?);
                self.handle.neighbours().del(message).execute().await
            }
            Step::RemoveDefaultLocalRule => {
                match self.add_rule(&Rule::default_local(), RTPROT_KERNEL).await {
                    Err(error) if error_number(&error) == Some(libc::EEXIST) => Ok(()),
                    result => result,
                }
            }
            Step::Sysctl { .. } => unreachable!("the sysctl module writes sysctls"),
        };
        match result {
            Err(error) if error_number(&error).is_some_and(|code| NOT_FOUND.contains(&code)) => {
                Ok(())
            }
            Err(error) => Err(HostError::netlink(format!("removing `{}`", step.command()), error)),
            Ok(()) => Ok(()),
        }
    }

    async fn add_rule(&self, rule: &Rule, protocol: u8) -> Result<(), rtnetlink::Error> {
        let mut request = self.handle.rule().add();
        *request.message_mut() = rule_message(rule, Some(protocol));
        request.execute().await
    }
}

/// Collects all messages of a dump.
///
/// # Errors
/// When the kernel refuses the dump.
pub(super) async fn dump<T>(
    doing: &str,
    stream: impl Stream<Item = Result<T, rtnetlink::Error>>,
) -> Result<Vec<T>, HostError> {
    let mut stream = std::pin::pin!(stream);
    let mut found = Vec::new();
    while let Some(item) = stream.next().await {
        found.push(item.map_err(|error| HostError::netlink(doing, error))?);
    }
    Ok(found)
}

/// Returns the kernel's error number, positive.
pub(super) fn error_number(error: &rtnetlink::Error) -> Option<i32> {
    if let rtnetlink::Error::NetlinkError(message) = error {
        Some(-message.raw_code())
    } else {
        None
    }
}
