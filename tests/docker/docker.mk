# SPDX-License-Identifier: MIT
#
# The module in containers. Included by the Makefile at the top.

DOCKER_TEST ?=

.PHONY: docker-base docker-build docker-vendor docker-test docker-test-or-skip docker-clean up down

docker-base: ## Make ready the images to build and test with: pulled, or packed from what this machine has
	tests/docker/base.sh

docker-build: ## Build the module into a FreeSWITCH image (FREESWITCH_IMAGE=…, or an installed FreeSWITCH)
	tests/docker/build.sh

docker-vendor: ## Make a FreeSWITCH image from its vendor's packages (SIGNALWIRE_TOKEN_FILE=…)
	tests/docker/build.sh --vendor

docker-test: ## Test the module in containers, with real brokers on one network (DOCKER_TEST=name for some)
	tests/docker/test.sh $(DOCKER_TEST)

# A part of `make test`: where no engine answers, that is noted among what was skipped.
docker-test-or-skip:
	@tests/docker/test.sh --or-skip

docker-clean: ## Remove the local images and the build cache that the targets above made
	tests/docker/clean.sh

up: ## Start FreeSWITCH with the module, RabbitMQ, Kafka, Prometheus and, where it can be had, Grafana with Docker Compose
	tests/docker/compose.sh up

down: ## Stop what `make up` started, and remove its data
	tests/docker/compose.sh down
