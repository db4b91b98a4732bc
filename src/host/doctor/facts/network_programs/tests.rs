//! Files of systemd-networkd and of NetworkManager, as people write them.

use super::*;

/// A directory that stands for the root, with these files.
fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    root
}

/// Returns the keys that are on, each with the file that sets it.
fn removing(files: &[(&str, &str)]) -> Vec<(&'static str, Option<String>)> {
    let root = root(files);
    let relative = |path: PathBuf| path.strip_prefix(root.path()).unwrap().display().to_string();
    let keys = removing_keys(root.path()).into_iter();
    keys.map(|found| (found.key, found.file.map(relative))).collect()
}

const BOTH_OFF: &str =
    "[Network]\nManageForeignRoutingPolicyRules=no\nManageForeignRoutes = false\n";
const RULES: &str = "ManageForeignRoutingPolicyRules";
const ROUTES: &str = "ManageForeignRoutes";

#[test]
fn networkd_removes_rules_and_routes_by_default() {
    assert_eq!(removing(&[]), [(RULES, None), (ROUTES, None)]);
    let commented = "[Network]\n#ManageForeignRoutes=no\n; ManageForeignRoutingPolicyRules=no\n";
    assert_eq!(removing(&[("etc/systemd/networkd.conf", commented)]).len(), 2);
    let elsewhere = "[DHCPv4]\nManageForeignRoutes=no\n";
    assert_eq!(removing(&[("etc/systemd/networkd.conf", elsewhere)]).len(), 2);
}

#[test]
fn networkd_spares_what_its_files_say() {
    for path in [
        "etc/systemd/networkd.conf",
        "usr/lib/systemd/networkd.conf",
        "etc/systemd/networkd.conf.d/natbox.conf",
        "run/systemd/networkd.conf.d/natbox.conf",
    ] {
        assert_eq!(removing(&[(path, BOTH_OFF)]), [], "{path}");
    }
    let one = "[Network]\nManageForeignRoutes=off\n";
    assert_eq!(removing(&[("etc/systemd/networkd.conf.d/a.conf", one)]), [(RULES, None)]);
    assert_eq!(removing(&[("etc/systemd/networkd.conf.d/a.txt", BOTH_OFF)]).len(), 2);
}

#[test]
fn the_last_drop_in_by_name_counts_and_the_first_directory() {
    let on = "[Network]\nManageForeignRoutes=yes\n";
    let dir = |name: &str| format!("etc/systemd/networkd.conf.d/{name}");
    let found = removing(&[(&dir("natbox.conf"), BOTH_OFF), (&dir("zz.conf"), on)]);
    assert_eq!(found, [(ROUTES, Some(dir("zz.conf")))]);
    assert_eq!(removing(&[(&dir("natbox.conf"), BOTH_OFF), (&dir("aa.conf"), on)]), []);
    // The file of /etc replaces the one of the same name.
    let replaced = [
        ("usr/lib/systemd/networkd.conf.d/natbox.conf", BOTH_OFF),
        ("etc/systemd/networkd.conf.d/natbox.conf", ""),
    ];
    assert_eq!(removing(&replaced).len(), 2);
    // An empty value is the default again.
    let empty = "[Network]\nManageForeignRoutes=\n";
    let reset = [(dir("natbox.conf"), BOTH_OFF), (dir("zz.conf"), empty)];
    let reset = reset.each_ref().map(|(path, text)| (path.as_str(), *text));
    assert_eq!(removing(&reset), [(ROUTES, None)]);
}

#[test]
fn network_manager_leaves_a_tun_alone_that_its_files_exclude() {
    let main = "etc/NetworkManager/NetworkManager.conf";
    let manages = |files: &[(&str, &str)]| may_manage(root(files).path(), "nb0");
    assert!(manages(&[]));
    for unmanaged in [
        "interface-name:nb*",
        "interface-name:nb0",
        "interface-name:=nb0",
        "interface-name:wg*;interface-name:nb?",
        "type:tun",
        "*",
        "*,except:interface-name:eth0",
        "except:interface-name:eth*",
    ] {
        let text = format!("[main]\nplugins=keyfile\n\n[keyfile]\nunmanaged-devices={unmanaged}\n");
        assert!(!manages(&[(main, &text)]), "{unmanaged}");
        let drop_in = "etc/NetworkManager/conf.d/natbox.conf";
        assert!(!manages(&[(main, "[main]\n"), (drop_in, &text)]), "{unmanaged}");
    }
    for managed in
        ["interface-name:nb", "interface-name:=nb*", "mac:00:11:22:33:44:55", "*,except:type:tun"]
    {
        let text = format!("[keyfile]\nunmanaged-devices={managed}\n");
        assert!(manages(&[(main, &text)]), "{managed}");
    }
    let device = "[device-natbox]\nmatch-device=interface-name:nb*\nmanaged=0\n";
    assert!(!manages(&[(main, device)]));
    assert!(manages(&[(main, &device.replace("managed=0", "managed=1"))]));
    // A later file replaces the list, or adds to it.
    let later = "etc/NetworkManager/conf.d/z.conf";
    let excluded = "[keyfile]\nunmanaged-devices=interface-name:nb*\n";
    let other = "[keyfile]\nunmanaged-devices=interface-name:wg*\n";
    assert!(manages(&[(main, excluded), (later, other)]));
    assert!(!manages(&[(main, excluded), (later, &other.replace("devices=", "devices+="))]));
}
