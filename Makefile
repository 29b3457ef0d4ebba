# Cofferdam: what can be made here.
#
# Two commands for a fresh Debian machine, as root: `make demo` and `make test`. Both install what they need.

HOST   := $(shell rustc -vV | sed -n 's/^host: //p')
RUSTFLAGS_VAR := CARGO_TARGET_$(shell echo $(HOST) | tr 'a-z-' 'A-Z_')_RUSTFLAGS
# Static: what the runtime needs must not depend on the root that it happens to run in. At a fixed address: relocating itself
# costs a process 15 us and 60 kB of private memory, a shim for each container; heap, stack and libraries are placed at random anyway.
STATIC := env $(RUSTFLAGS_VAR)="-C target-feature=+crt-static -C relocation-model=static" cargo
export COFFERDAM_COMMIT := $(shell git describe --always --dirty --abbrev=12 2>/dev/null)
PREFIX ?= /usr/local

.PHONY: help build check test demo bench install clean
help: ## What can be made
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

build: ## bin/cofferdam and bin/containerd-shim-cofferdam-v2, static and stripped
	@hack/need rust cc
	$(STATIC) build --locked --release --target $(HOST) -p cofferdam -p containerd-shim-cofferdam-v2
	@mkdir -p bin
	@for b in cofferdam containerd-shim-cofferdam-v2; do \
	  cmp -s target/$(HOST)/release/$$b bin/$$b || install -m 755 target/$(HOST)/release/$$b bin/$$b; done

check: ## Formatting, lints, documentation, unit tests: without privileges, quick
	@hack/need rust cc
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --document-private-items --quiet
	cargo test --locked --workspace --quiet

test: ## check and root tests here; PARTS="check root vm break e2e" adds a virtual machine, faults and real engines
	@hack/test $(PARTS)

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
