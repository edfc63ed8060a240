#!/bin/sh
# Unpacks a Mesa with cooperative matrices (26 or newer) and all it needs into target/mesa, beside the system's own, and
# writes target/mesa/run: `target/mesa/run PROGRAM ARGS` runs a program on its lavapipe, with its own C library. Nothing is
# installed. Wants Debian or Ubuntu's apt and the Debian mirror that the machine is configured for.
set -eu
cd "$(dirname "$0")/.."
root=$PWD/target/mesa
suite=${MESA_SUITE:-sid}
if [ -x "$root/run" ]; then exit 0; fi
mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep '/debian/\{0,1\}$' | head -n 1)
if [ -z "$mirror" ]; then
    echo "tools/mesa26.sh: no Debian mirror among apt's sources" >&2
    exit 1
fi
state=$root/apt
mkdir -p "$state/lists/partial" "$state/cache/archives/partial" "$root/root"
: > "$state/status"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
echo "deb [signed-by=$keyring] $mirror $suite main" > "$state/sources.list"
set -- -o Dir::State="$state" -o Dir::State::status="$state/status" -o Dir::State::lists="$state/lists" \
    -o Dir::Cache="$state/cache" -o Dir::Etc::sourcelist="$state/sources.list" -o Dir::Etc::sourceparts=/dev/null \
    -o Dir::Etc::preferencesparts=/dev/null -o APT::Sandbox::User=root -o Debug::NoLocking=1 -qq
apt-get "$@" update
apt-get "$@" -y --no-install-recommends --download-only install mesa-vulkan-drivers libvulkan1
for package in "$state"/cache/archives/*.deb; do
    dpkg -x "$package" "$root/root"
done
rm -rf "$state"
lib=$root/root/usr/lib/x86_64-linux-gnu
icd=$(ls "$root"/root/usr/share/vulkan/icd.d/lvp_icd*.json)
sed -i "s|\"library_path\": \".*\"|\"library_path\": \"$lib/libvulkan_lvp.so\"|" "$icd"
cat > "$root/run" <<RUN
#!/bin/sh
VK_DRIVER_FILES="$icd" exec "$lib/ld-linux-x86-64.so.2" --library-path "$lib" "\$@"
RUN
chmod +x "$root/run"
