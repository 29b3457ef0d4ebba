# Cofferdam: what can be made here.
#
# Two commands for a fresh Debian machine, as root: `make demo` and `make test`. Both install what they need.

PREFIX ?= /usr/local

.PHONY: help build check test e2e kernels conformance demo bench install clean
help: ## What can be made
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

build: ## bin/cofferdam and bin/containerd-shim-cofferdam-v2, static and stripped
	@hack/need rust cc
	@hack/build

check: ## Formatting, lints, documentation, unit tests: without privileges, quick
	@hack/need rust cc
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --document-private-items --quiet
	cargo test --locked --workspace --quiet

test: ## All that must hold before a change lands: hack/test says what; PARTS="check root" for some of it
	@hack/test $(PARTS)

e2e: ## Real dockerd, containerd and podman walk with us by path and under our shim, beside runc
	@hack/test e2e

kernels: ## Root tests, all with both cgroup drivers, under Debian's oldest and newest kernel; and here without each newer system call
	@export DRIVERS="fs systemd"; failed=0; \
	for kernel in bookworm sid; do KERNEL=$$kernel hack/test vm || failed=1; done; \
	hack/test fallbacks || failed=1; exit $$failed

conformance: build ## the OCI validation suite and the own tests of runc, crun, containerd and podman, whole, peers beside us; RUNTIMES="runc crun youki"
	@hack/conformance/all $(RUNTIMES)

bench: build ## Cofferdam beside crun, runc, youki and the bare kernel, in one interleaved run
	@hack/need rust cc
	@hack/bench/run $(BENCH)

demo: build ## Runs one container and shows what isolates it, and the plan
	@hack/demo

install: build ## Both programs into $(DESTDIR)$(PREFIX)/bin
	install -D -m 755 bin/cofferdam $(DESTDIR)$(PREFIX)/bin/cofferdam
	install -D -m 755 bin/containerd-shim-cofferdam-v2 $(DESTDIR)$(PREFIX)/bin/containerd-shim-cofferdam-v2

clean: ## Removes what was built
	cargo clean
	rm -rf bin
