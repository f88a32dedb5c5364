# SPDX-License-Identifier: GPL-2.0
#
# The front door. Each target is one script; "make help" lists them all.

export BASE KSRC JOBS MEM SMP ACCEL BUILD DURATION TEST_MINUTES PART V SIGNOFF SINCE CONFIG LOCALMOD

VARIABLES := BASE KSRC JOBS MEM SMP ACCEL BUILD ARCH DURATION TEST_MINUTES PART V SIGNOFF SINCE \
	CONFIG LOCALMOD
unknown := $(strip $(foreach v,$(.VARIABLES),$(if $(filter command,$(origin $v)),$(filter-out $(VARIABLES),$v))))
ifneq ($(unknown),)
$(error $(unknown): not a variable of this makefile. Right ones: $(VARIABLES))
endif

BACKPORT := help run compare test tree refresh series lint config shell rfc clean distclean
ifneq ($(filter-out 7.3,$(BASE)),)
ifneq ($(filter-out $(BACKPORT),$(MAKECMDGOALS)),)
$(error BASE=$(BASE) has no target $(filter-out $(BACKPORT),$(MAKECMDGOALS)). Right ones: $(BACKPORT))
endif
endif

ARCH := x86_64
ifeq ($(filter x86_64 arm64,$(ARCH)),)
$(error ARCH=$(ARCH) is not known. Right values: x86_64, arm64)
endif

.PHONY: help run compare test tree refresh series lint config shell verify fio stress faults debug kcsan \
	defconfig each-patch matrix static regress bench bench-quick scenario cases docs rfc deb deb-test clean distclean
.NOTPARALLEL:

help:		## this list
	@awk -F'[:#]+' '/^[a-z-]+:.*##/ { printf "  make %-13s %s\n", $$1, $$3 }' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo '  BASE=6.12       the backport to that kernel: run, compare, test, tree, refresh, series (7.3)'
	@echo '  KSRC=DIR        base: your own Linux tree of that version, copied once, never written to'
	@echo '  BUILD=DIR       where everything is made (build)'
	@echo '  JOBS=N          compilers at once (one per CPU)'
	@echo '  MEM=768M SMP=2  size of the guest'
	@echo '  ACCEL=kvm|tcg   how QEMU runs it (found out)'
	@echo '  ARCH=arm64      run: KUnit and cma_gup_pin, emulated (x86_64: as described above); defconfig'
	@echo '  DURATION=600    fio, stress, faults: seconds'
	@echo '  TEST_MINUTES=60 test: leaves out what would take longer, the debug kernel first'
	@echo '  CONFIG=FILE     deb: configuration to begin with (of the running kernel, or Debian'\''s)'
	@echo '  LOCALMOD=1      deb: only the modules that are loaded now'
	@echo '  PART=core       rfc: fixes (of the base), core (the RFC), follow-up'
	@echo '  V=2 SINCE=REF   rfc: number of the version; commit or tag here that the last was sent from'
	@echo '  SIGNOFF="Name <mail>"  rfc: who sends, and signs'

run:		## boot the patched kernel, allocate under direct I/O with waiting off and on
	@scripts/$(if $(filter arm64,$(ARCH)),check/arm64.sh,measure/run.sh series)

compare:	## the same, and on the unpatched base too
	@scripts/measure/run.sh base series

test:		## all fast tests, counted in the last line
	@scripts/check/test.sh

tree:		## the kernel git tree in BUILD/tree, one commit per patch
	@scripts/packages.sh tree
	@scripts/series/convert.sh tree

refresh:	## write the tree's commits back to patches/ and the new files
	@scripts/series/convert.sh refresh

series:		## complete mails in BUILD/mails, for git am on a bare base
	@scripts/packages.sh tree
	@scripts/series/convert.sh export

lint:		## what can be checked without a build
	@scripts/packages.sh tree lint
	@scripts/check/lint.sh

config:		## configure the patched kernel in BUILD/kernel-series
	@scripts/packages.sh tree build
	@scripts/build/kernel.sh config series

shell:		## boot the patched kernel to a shell; the host's root is read-only under it
	@scripts/packages.sh tree build vm
	@scripts/build/kernel.sh build series
	@scripts/vm/boot.sh --kernel series --append cma=256M --out vm-shell --shell

fio:		## fio as the load, for DURATION seconds
	@scripts/check/fio.sh

stress:		## waiters killed at random, allocators back to back, amid churn, for DURATION seconds
	@scripts/check/stress.sh

faults:		## allocations of memory and I/O that fail at random, for DURATION seconds
	@scripts/check/stress.sh faults

debug:		## the tests on a kernel with lockdep, KASAN and other checks, which "test" ends with
	@scripts/check/test.sh debug

kcsan:		## the tests on a kernel that looks for data races
	@scripts/check/test.sh kcsan

defconfig:	## cma_gup_pin on a kernel of the defconfig of ARCH
	@scripts/check/$(if $(filter arm64,$(ARCH)),arm64.sh arm64-defconfig,test.sh defconfig)

each-patch:	## each patch by itself, built in three configurations and booted; resumable
	@scripts/check/each-patch.sh

matrix:		## what the series touches, built in many configurations; resumable
	@scripts/check/matrix.sh

static:		## what sparse, Coccinelle and GCC's analyzer say about the series only
	@scripts/check/static.sh

regress:	## the kernel's own mm selftests and KUnit suites, on both kernels; what the series loses
	@scripts/check/regress.sh

bench:		## unpatched, retry, FOLL_LONGTERM and patched, measured in turn (tables, plots)
	@scripts/measure/bench.sh full

bench-quick:	## the same in one short round
	@scripts/measure/bench.sh quick

scenario:	## a camera and an updater, on both kernels
	@scripts/measure/scenario.sh

cases:		## what users of CMA have reported, on both kernels (two hours, with two more kernels)
	@scripts/measure/cases.sh

verify:		## check the model of the gate
	@scripts/packages.sh verify
	@verify/run.sh

docs:		## what Sphinx and kernel-doc say about the series, and not about the base
	@scripts/packages.sh tree docs
	@scripts/series/convert.sh tree
	@scripts/check/docs.sh

rfc:		## final mails of PART= in BUILD/rfc, with recipients, checked
	@$(if $(filter-out 7.3,$(BASE)),,scripts/packages.sh tree lint rfc)
	@scripts/series/rfc.sh

deb:		## Debian packages of the patched kernel, and of its tests, in BUILD/deb
	@scripts/build/deb.sh

deb-test:	## such packages installed into a Debian on a disk, booted, tested, purged
	@scripts/tests/deb.sh

clean:		## remove what was built; keep the download and the trees
	@scripts/clean.sh clean

distclean:	## remove all of BUILD, the download too
	@scripts/clean.sh distclean
