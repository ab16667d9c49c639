# What a fresh Debian 12 machine needs. `make setup` installs what is missing, and nothing else runs as root.
# ENGINE=e2fs leaves out libguestfs, its virtual machine and its kernel, and the tests of them.
ENGINE := auto
GUESTFS := python3-guestfs libguestfs-tools supermin qemu-utils \
	$(if $(filter arm64,$(shell dpkg --print-architecture)),,qemu-system-x86) \
	$(if $(wildcard /boot/vmlinuz*),,linux-image-$(shell dpkg --print-architecture))
PACKAGES := $(if $(filter e2fs,$(ENGINE)),,$(GUESTFS)) \
	arch-test bmap-tools cpio debian-archive-keyring kmod mmdebstrap qemu-system-arm qemu-user-static uidmap \
	dosfstools e2fsprogs fakeroot fdisk iproute2 mtools openssh-client openssl python3-venv util-linux xz-utils zstd \
	mariadb-server nftables postgresql systemd-container
# An ordinary user's PATH on Debian lacks the folders of mkfs and its like.
export PATH := $(PATH):/usr/sbin:/sbin
comma := ,
SUDO := $(if $(filter 0,$(shell id -u)),,sudo --preserve-env=http_proxy$(comma)https_proxy$(comma)no_proxy)
BIN := .venv/bin

.PHONY: help setup packages demo demo-adopt test lint bench bench-join bench-adopt bench-flash

help:
	@echo 'make setup   install what is missing (apt, .venv); ENGINE=e2fs goes without libguestfs'
	@echo 'make demo    bake a worker and a master, and boot them until the worker joins; BOOT=0 boots nothing,'
	@echo '             REAL=1 downloads Raspbian and K3s for it'
	@echo 'make demo-adopt   make three machines that run a cluster, over SSH; as root'
	@echo "make test    run the tests; ARGS='-k name' is passed to pytest"
	@echo 'make lint    ruff and mypy'
	@echo 'make bench   compare with virt-customize and with copying; ARGS=--quick with copying alone'
	@echo 'make bench-adopt  compare with Ansible, on fifty machines in namespaces; as root'
	@echo 'make bench-flash   compare with dd and bmaptool, on loop devices; as root'
	@echo 'make bench-join   how soon workers join, on hosts in namespaces; as root'

setup: packages .venv/ready

packages:
	@missing=; for package in $(PACKAGES); do \
		dpkg-query -W -f '$${db:Status-Status}' $$package 2>/dev/null | grep -qx installed || \
			missing="$$missing $$package"; \
	done; \
	if [ -n "$$missing" ]; then \
		echo "setup: installing$$missing"; \
		$(SUDO) apt-get update && \
		$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $$missing; \
	fi
	@[ $(ENGINE) != e2fs ] || exit 0; for kernel in /boot/vmlinuz-*; do [ ! -r "$$kernel" ] || exit 0; done; \
		echo 'setup: libguestfs needs a kernel it can read: sudo chmod a+r /boot/vmlinuz-*' >&2

# The distribution's Python, because its guestfs binding exists nowhere else.
.venv/ready: pyproject.toml Makefile | packages
	@echo 'setup: making .venv'
	@/usr/bin/python3 -m venv --system-site-packages .venv
	@$(BIN)/pip install --quiet --editable '.[dev]'
	@touch $@

demo: setup
	$(BIN)/python images/sample/demo.py $(if $(REAL),--real) $(if $(filter 0,$(BOOT)),--no-boot)

demo-adopt: setup
	$(BIN)/python images/sample/demo_adopt.py

test: setup
	$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder --durations=15 $(if $(filter e2fs,$(ENGINE)),-m 'not libguestfs') $(ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --strict images/sample/*.py

bench: setup
	$(BIN)/python -m bench.bake $(ARGS)

bench-adopt: setup
	$(BIN)/python -m bench.adopt $(ARGS)

bench-flash: setup
	$(BIN)/python -m bench.flash $(ARGS)

bench-join: setup
	$(BIN)/python -m bench.join $(ARGS)
