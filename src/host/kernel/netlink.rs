//! A netlink socket: reads a [`Snapshot`], makes and removes the change of a [`Step`].

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use futures_util::stream::{Stream, StreamExt};
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::neighbour::NeighbourFlags;
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{Handle, IpVersion, LinkUnspec, RouteMessageBuilder};
use tokio::task::JoinHandle;

use super::decode;
use super::encode::{address_message, proxy_message, removal_message, route_message, rule_message};
use super::indices::Indices;
use crate::host::error::HostError;
use crate::host::model::snapshot::{FoundRule, Link, ProxyEntry, Snapshot};
use crate::host::model::step::{Route, RouteKind, Rule, Step, TUN_GROUP, TUN_MTU};

/// Errors of the kernel that mean "the object does not exist".
const NOT_FOUND: [i32; 6] =
    [libc::ENOENT, libc::ESRCH, libc::ENXIO, libc::ENODEV, libc::ENETDOWN, libc::EADDRNOTAVAIL];

/// A netlink socket of the calling process's network namespace.
pub(crate) struct Kernel {
    handle: Handle,
    connection: JoinHandle<()>,
    /// The open TUN. None: before the TUN is open, and outside the running instance.
    tun: Option<OpenTun>,
}

/// The TUN that the workers serve. Its index lasts as long as the device. Any program can change
/// its name.
struct OpenTun {
    index: u32,
    /// Name in the configuration.
    name: String,
}

impl OpenTun {
    /// Gives the TUN its name of the configuration, whatever its present name is. Leaves out
    /// another interface of that name, so that no step changes that interface.
    fn name_in(&self, links: &mut Vec<Link>) {
        links.retain(|link| link.name != self.name || link.index == self.index);
        for link in links.iter_mut().filter(|link| link.index == self.index) {
            link.name.clone_from(&self.name);
        }
    }
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
        Ok(Self { handle, connection: tokio::spawn(connection), tun: None })
    }

    /// From now on, the interface with this index is the TUN of the configuration, whatever its
    /// name is.
    pub(crate) fn follow_tun(&mut self, index: u32, name: &str) {
        self.tun = Some(OpenTun { index, name: name.to_owned() });
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
        let names = link_names(&links);
        let addresses = dump("listing addresses", self.handle.address().get().execute()).await?;
        let routes = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let routes = dump("listing routes", self.handle.route().get(routes).execute()).await?;
        let (rules, proxies) = (self.rules().await?, self.proxies().await?);
        Ok(Snapshot {
            addresses: addresses.iter().filter_map(decode::address).collect(),
            private_ipv6: addresses.iter().filter_map(decode::private_ipv6).collect(),
            routes: routes.iter().filter_map(|message| decode::route(message, &names)).collect(),
            rules,
            proxies,
            links,
        })
    }

    /// Reads the rules.
    ///
    /// # Errors
    /// When the kernel refuses the dump.
    pub(crate) async fn rules(&self) -> Result<Vec<FoundRule>, HostError> {
        let rules = dump("listing rules", self.handle.rule().get(IpVersion::V4).execute()).await?;
        Ok(rules.iter().map(decode::rule).collect())
    }

    /// Reads the proxy neighbour entries.
    ///
    /// # Errors
    /// When the kernel refuses the dump.
    pub(crate) async fn proxies(&self) -> Result<Vec<ProxyEntry>, HostError> {
        let proxies =
            self.handle.neighbours().get().proxies().set_address_family(AddressFamily::Inet);
        let proxies = dump("listing proxy neighbour entries", proxies.execute()).await?;
        Ok(proxies.iter().filter_map(decode::proxy).collect())
    }

    /// Reads the interfaces. The TUN has its name of the configuration; see [`Self::follow_tun`].
    ///
    /// # Errors
    /// When the kernel refuses the dump.
    pub(crate) async fn links(&self) -> Result<Vec<Link>, HostError> {
        let links = dump("listing interfaces", self.handle.link().get().execute()).await?;
        let mut links: Vec<Link> = links.iter().filter_map(decode::link).collect();
        if let Some(tun) = &self.tun {
            tun.name_in(&mut links);
        }
        Ok(links)
    }

    /// Returns the present name of the TUN if another program has renamed the TUN.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub(crate) async fn wrong_tun_name(&self) -> Result<Option<String>, HostError> {
        let Some(tun) = &self.tun else { return Ok(None) };
        let mut answer = self.handle.link().get().match_index(tun.index).execute();
        let found = match answer.next().await {
            Some(Ok(message)) => decode::link(&message),
            Some(Err(error)) if error_number(&error) != Some(libc::ENODEV) => {
                return Err(HostError::netlink("reading the TUN device", error));
            }
            // The device is gone.
            Some(Err(_)) | None => None,
        };
        Ok(found.map(|link| link.name).filter(|name| *name != tun.name))
    }

    /// Renames the TUN back to its name of the configuration. Kernels before Linux 6.2 rename no
    /// interface that is up, so there the TUN is set down first.
    ///
    /// # Errors
    /// When the kernel refuses: another interface has the name.
    pub(crate) async fn rename_tun_back(&self, found: &str) -> Result<(), HostError> {
        let Some(OpenTun { index, name }) = &self.tun else { return Ok(()) };
        let change = || LinkUnspec::new_with_index(*index);
        let rename = || {
            let message = change().name(name.clone()).build();
            self.handle.link().change(message).execute()
        };
        let mut result = rename().await;
        if result.as_ref().is_err_and(|error| error_number(error) == Some(libc::EBUSY)) {
            result = self.handle.link().change(change().down().build()).execute().await;
            if result.is_ok() {
                result = rename().await;
            }
        }
        result.map_err(|error| {
            let doing = format!("ip link set {found} name {name}");
            match error_number(&error) {
                Some(libc::EEXIST) => HostError::TunNameTaken { name: name.clone(), doing },
                _ => HostError::netlink(doing, error),
            }
        })
    }

    /// Makes the change of a step other than a sysctl.
    ///
    /// # Errors
    /// When the kernel refuses the change, for example because an equal object exists.
    pub(crate) async fn add(&self, step: &Step, indices: &Indices) -> Result<(), HostError> {
        let result = match step {
            Step::BringUpTun { device, queue_length } => {
                let message = LinkUnspec::new_with_index(indices.of(device)?)
                    .mtu(TUN_MTU)
                    .txqueuelen(*queue_length)
                    .link_group(TUN_GROUP)
                    .up();
                self.handle.link().change(message.build()).execute().await
            }
            Step::Address { device, address } => {
                let message = address_message(*address, indices.of(device)?);
                let mut request = self.handle.address().add(0, IpAddr::V4(*address), 32);
                *request.message_mut() = message;
                request.execute().await
            }
            Step::Route(route) => self.add_route(route, indices).await?,
            Step::Rule(rule) => self.add_rule(rule).await,
            Step::ProxyNeighbour { address, device } => {
                let neighbours = self.handle.neighbours();
                let request = neighbours.add(indices.of(device)?, IpAddr::V4(*address));
                request.flags(NeighbourFlags::Proxy).execute().await
            }
            Step::SetLocalRuleAside => self.set_local_rule_aside().await,
            Step::KeepMainRule => self.add_rule(&Rule::default_main()).await,
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
            Step::BringUpTun { .. } | Step::KeepMainRule => Ok(()),
            Step::Address { device, address } => {
                let message = address_message(*address, indices.of(device)?);
                self.handle.address().del(message).execute().await
            }
            Step::Route(route) => {
                let message = route_message(route, indices)?;
                self.handle.route().del(message).execute().await
            }
            Step::Rule(rule) => self.delete_rule(rule).await,
            Step::ProxyNeighbour { address, device } => {
                let message = proxy_message(*address, indices.of(device)?);
                self.handle.neighbours().del(message).execute().await
            }
            Step::SetLocalRuleAside => self.restore_local_rule().await,
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

    /// Removes the routes of a table that are none of `kept`. Returns them as `ip` writes them.
    ///
    /// # Errors
    /// When the kernel refuses the list or a removal.
    pub(crate) async fn remove_routes(
        &self,
        table: u32,
        kept: &[Route],
    ) -> Result<Vec<String>, HostError> {
        let links = self.links().await?;
        let names = link_names(&links);
        let all = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let mut removed = Vec::new();
        for message in dump("listing routes", self.handle.route().get(all).execute()).await? {
            let found = decode::route(&message, &names);
            let Some(found) = found.filter(|found| found.route.table == table) else { continue };
            if found.is_one_of(kept) {
                continue;
            }
            let words = found.route.words();
            // The kernel's own message names the route exactly, whatever attributes it has.
            let request = self.handle.route().del(removal_message(message));
            let result = ignore(request.execute().await, libc::ESRCH);
            result.map_err(|error| HostError::netlink(format!("removing `{words}`"), error))?;
            removed.push(words);
        }
        Ok(removed)
    }

    async fn add_rule(&self, rule: &Rule) -> Result<(), rtnetlink::Error> {
        let mut request = self.handle.rule().add();
        *request.message_mut() = rule_message(rule, Some(rule.protocol()));
        request.execute().await
    }

    async fn delete_rule(&self, rule: &Rule) -> Result<(), rtnetlink::Error> {
        self.handle.rule().del(rule_message(rule, Some(rule.protocol()))).execute().await
    }

    /// Replaces the kernel's local rule; see [`Step::SetLocalRuleAside`].
    async fn set_local_rule_aside(&self) -> Result<(), rtnetlink::Error> {
        // The kernel deletes the first rule that matches a request, and a request without a group
        // matches both rules. So the rule with the group has to be the last one.
        ignore(self.delete_rule(&Rule::local_aside()).await, libc::ENOENT)?;
        self.add_rule(&Rule::local_aside()).await?;
        let all = rule_message(&Rule::default_local(), None);
        match self.local_rules().await? {
            0 | 1 => Ok(()),
            _ => ignore(self.handle.rule().del(all).execute().await, libc::ENOENT),
        }
    }

    /// Puts the kernel's local rule back.
    async fn restore_local_rule(&self) -> Result<(), rtnetlink::Error> {
        ignore(self.add_rule(&Rule::default_local()).await, libc::EEXIST)?;
        self.delete_rule(&Rule::local_aside()).await
    }

    /// Counts the rules of the local table at priority 0.
    async fn local_rules(&self) -> Result<usize, rtnetlink::Error> {
        let mut rules = std::pin::pin!(self.handle.rule().get(IpVersion::V4).execute());
        let is_first = |rule: Rule| rule == Rule::default_local() || rule == Rule::local_aside();
        let mut count = 0;
        while let Some(message) = rules.next().await {
            count += usize::from(is_first(decode::rule(&message?).rule));
        }
        Ok(count)
    }

    async fn add_route(
        &self,
        route: &Route,
        indices: &Indices,
    ) -> Result<Result<(), rtnetlink::Error>, HostError> {
        let message = route_message(route, indices)?;
        if route.kind != RouteKind::Local {
            return Ok(self.handle.route().add(message).execute().await);
        }
        // The route may exist, behind one that another program has added since.
        if let Err(error) = self.handle.route().del(message.clone()).execute().await {
            tracing::trace!(%error, "no local route to move");
        }
        // Without NLM_F_EXCL and NLM_F_APPEND the route precedes the kernel's own.
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::NewRoute(message));
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE;
        Ok(match self.handle.clone().request(request) {
            Ok(mut answers) => match answers.next().await.map(|answer| answer.payload) {
                Some(NetlinkPayload::Error(error)) if error.code.is_some() => {
                    Err(rtnetlink::Error::NetlinkError(error))
                }
                Some(_) | None => Ok(()),
            },
            Err(error) => Err(error),
        })
    }
}

fn link_names(links: &[Link]) -> HashMap<u32, &str> {
    links.iter().map(|link| (link.index, link.name.as_str())).collect()
}

/// Turns an error number of the kernel into success.
fn ignore(result: Result<(), rtnetlink::Error>, number: i32) -> Result<(), rtnetlink::Error> {
    match result {
        Err(error) if error_number(&error) == Some(number) => Ok(()),
        result => result,
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
