.PHONY: build demo test lint bench fuzz
build demo test lint bench fuzz:
	./dev $@
