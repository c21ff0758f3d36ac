# onestep: `make` builds build/onestep. CMake does the work; `make help` lists the targets.

BUILD ?= build
JOBS ?= $(shell nproc)
PREFIX ?= /usr/local
CMAKE_FLAGS ?=
# CMake calls make again: without the names of folders it goes in and out of.
MAKEFLAGS += --no-print-directory
# Written last, so a configuration that failed is tried again.
CONFIGURED = $(BUILD)/cmake_install.cmake

# What `make install` wrote, for `make uninstall`, also from another clone.
INSTALLED = $(PREFIX)/share/onestep/installed-files
# So that programs find the library at once; nobody else's business, and only root can.
REFRESH_LIBRARIES = if [ -z "$(DESTDIR)" ] && [ "$$(id -u)" = 0 ]; then ldconfig; fi

.PHONY: all check check-slow sanitize fuzz bench demo tidy format install uninstall deb dist packages clean help

all: $(CONFIGURED)
	@cmake --build $(BUILD) -j $(JOBS)

$(CONFIGURED): CMakeLists.txt
	@tools/install_packages build
	@cmake -S . -B $(BUILD) -DCMAKE_INSTALL_PREFIX=$(PREFIX) $(CMAKE_FLAGS)

help:
	@echo "make              build $(BUILD)/onestep and the library (installs Debian packages when missing)"
	@echo "make check        build with warnings as errors and run all quick tests; ends with 'N passed, N failed'"
	@echo "make check-slow   TSan, full-size, page, load and PyPI checks"
	@echo "make sanitize     the tests under AddressSanitizer and UndefinedBehaviorSanitizer"
	@echo "make fuzz         every fuzz target for FUZZ_SECONDS (60)"
	@echo "make demo         build, then translate the bundled pictures with the built-in models"
	@echo "make bench        measure this machine"
	@echo "make tidy         clang-format and clang-tidy"
	@echo "make install      to PREFIX ($(PREFIX)), inside DESTDIR when that is set; make uninstall undoes it"
	@echo "make deb           build/onestep_VERSION_ARCH.deb, checked with lintian"
	@echo "make dist          build/onestep-VERSION-linux-ARCH.tar.gz, which runs on other distributions"
	@echo "make packages     install what building and testing needs from Debian's packages"
	@echo "make clean        remove $(BUILD)"

packages:
	@tools/install_packages build check

check:
	@tools/install_packages build check
	@tests/run_checks

check-slow:
	@tools/install_packages build check fuzz web python
	@tests/run_slow_checks

sanitize:
	@tools/install_packages build check fuzz
	@tests/run_sanitized

fuzz:
	@tools/install_packages build check fuzz
	@tests/run_fuzzers $(FUZZ_SECONDS)

demo: all
	@$(BUILD)/onestep demo -o demo-output

bench: all
	@$(BUILD)/onestep bench --demo

tidy:
	@tools/install_packages tidy
	@tools/tidy

install: all
	@DESTDIR="$(DESTDIR)" cmake --install $(BUILD) --prefix $(PREFIX)
	@cp $(BUILD)/install_manifest.txt "$(DESTDIR)$(INSTALLED)"
	@$(REFRESH_LIBRARIES)

uninstall:
	@test -f "$(DESTDIR)$(INSTALLED)" || { echo "nothing is installed under $(DESTDIR)$(PREFIX)"; exit 1; }
	@sed 's|^|$(DESTDIR)|' "$(DESTDIR)$(INSTALLED)" | xargs -d '\n' rm -fv
	@rm -fv "$(DESTDIR)$(INSTALLED)"
	@find "$(DESTDIR)$(PREFIX)" -depth -type d -path '*/onestep*' -empty -delete
	@$(REFRESH_LIBRARIES)

deb: all
	@tools/install_packages deb
	@tools/make_deb $(BUILD)
	@lintian --fail-on error $(BUILD)/onestep_*.deb

dist: all
	@tools/install_packages dist
	@tools/make_dist $(BUILD)

clean:
	@rm -rf $(BUILD)
